import { equals } from "@bufbuild/protobuf";
import type { Clock } from "@toolplane/framework";
import { HealthCheckSpecSchema, HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Logger } from "pino";
import { milliseconds } from "../../config/durations.ts";
import {
  type Catalogue,
  type CatalogueChange,
  type CatalogueInstance,
  type CatalogueService,
  isSameRegistration,
} from "../catalogue.ts";
import { createSchedule } from "../schedule.ts";
import type { Checker } from "./checker.ts";

/** How many checks are done at once. */
const CONCURRENCY = 32;
/** An instance that failed is checked again soon, then less and less often: 1 s, 2 s, 4 s, and so on. */
const FIRST_RECHECK_MS = 1_000;
/** The longest time until a failed instance is checked again, unless its interval is shorter. */
const MAX_RECHECK_MS = 10_000;
/** Times vary by this share, so that instances registered together are not checked together for ever. */
const JITTER = 0.1;

export interface MonitorOptions {
  readonly catalogue: Catalogue;
  readonly checker: Checker;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Draws from [0, 1). */
  readonly random: () => number;
  /** Time between two checks where the service names none, in milliseconds. */
  readonly intervalMs: number;
}

/** Checks all instances from time to time: a new one at once, a failed one soon again. */
export interface Monitor {
  follow(changes: readonly CatalogueChange[]): void;
  close(): Promise<void>;
}

export function startMonitor(options: MonitorOptions): Monitor {
  const { catalogue, checker, clock, logger, random } = options;
  /** How often in a row each instance has failed. */
  const failures = new Map<string, number>();
  /** The instances that are asked to tell by themselves. */
  const followed = new Map<string, { stop: AbortController; ended: Promise<void> }>();
  const schedule = createSchedule({
    clock,
    concurrency: CONCURRENCY,
    work: check,
    onError: (error) => logger.error({ err: error }, "an instance could not be checked"),
  });

  function vary(ms: number): number {
    return ms * (1 - JITTER + 2 * JITTER * random());
  }

  async function check(id: string, signal: AbortSignal): Promise<number | undefined> {
    const found = catalogue.instance(id);
    if (!found || signal.aborted) {
      return undefined;
    }
    const { service, instance } = found;
    startFollowing(service, instance);
    const record = await checker.check(service, instance, signal);
    if (!record) {
      return undefined;
    }
    const intervalMs = milliseconds(service.spec.healthCheck?.interval, options.intervalMs);
    if (record.status === HealthStatus.HEALTHY) {
      failures.delete(id);
      return vary(intervalMs);
    }
    const attempts = failures.get(id) ?? 0;
    failures.set(id, attempts + 1);
    const recheckMs = FIRST_RECHECK_MS * 2 ** Math.min(attempts, 10);
    return vary(Math.min(intervalMs, recheckMs, MAX_RECHECK_MS));
  }

  function startFollowing(service: CatalogueService, instance: CatalogueInstance): void {
    const kind = service.spec.healthCheck?.kind;
    if (kind?.case !== "grpc" || !kind.value.watch || followed.has(instance.id)) {
      return;
    }
    const stop = new AbortController();
    const ended = checker.follow(service, instance, kind.value.service, stop.signal).finally(() => {
      // Taken up again with the next check, which comes soon.
      if (followed.get(instance.id)?.stop === stop) {
        followed.delete(instance.id);
        if (!stop.signal.aborted) {
          schedule.plan(instance.id, FIRST_RECHECK_MS);
        }
      }
    });
    followed.set(instance.id, { stop, ended });
  }

  function stopFollowing(id: string): void {
    followed.get(id)?.stop.abort();
    followed.delete(id);
  }

  function followService({ before, after }: CatalogueChange): void {
    const known = new Map(before?.instances.map((instance) => [instance.id, instance]));
    const isSameCheck = hasSameCheck(before, after);
    for (const instance of after?.instances ?? []) {
      const previous = known.get(instance.id);
      known.delete(instance.id);
      if (after?.spec.healthCheck?.kind.case === "none") {
        forget(instance.id);
      } else if (!isSameCheck || !previous || !isSameRegistration(previous, instance)) {
        stopFollowing(instance.id);
        schedule.plan(instance.id, 0);
      } else if (hasFailed(instance) && !hasFailed(previous)) {
        // Found on demand, perhaps through another replica.
        schedule.plan(instance.id, vary(FIRST_RECHECK_MS));
      }
    }
    for (const id of known.keys()) {
      // It may have moved to another service.
      if (!catalogue.instance(id)) {
        forget(id);
      }
    }
  }

  function forget(id: string): void {
    schedule.forget(id);
    failures.delete(id);
    stopFollowing(id);
  }

  for (const service of catalogue.services()) {
    if (service.spec.healthCheck?.kind.case === "none") {
      continue;
    }
    for (const { id, health } of service.instances) {
      const intervalMs = milliseconds(service.spec.healthCheck?.interval, options.intervalMs);
      schedule.plan(id, health === HealthStatus.HEALTHY ? intervalMs * random() : 0);
    }
  }

  return {
    follow: (changes) => changes.forEach(followService),
    async close() {
      const ending = [...followed.values()].map(({ stop, ended }) => {
        stop.abort();
        return ended;
      });
      followed.clear();
      await Promise.all([schedule.close(), ...ending]);
    },
  };
}

function hasFailed({ health }: CatalogueInstance): boolean {
  return health === HealthStatus.UNHEALTHY;
}

function hasSameCheck(before: CatalogueService | undefined, after: CatalogueService | undefined): boolean {
  const [left, right] = [before?.spec.healthCheck, after?.spec.healthCheck];
  return left && right ? equals(HealthCheckSpecSchema, left, right) : left === right;
}
