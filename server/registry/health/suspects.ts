import type { Clock } from "@toolplane/framework";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Logger } from "pino";
import type { Catalogue } from "../catalogue.ts";
import { createSchedule } from "../schedule.ts";
import type { Checker } from "./checker.ts";

/** How many checks are done at once. */
const CONCURRENCY = 32;
/** However many calls fail, an instance is checked for their sake once in this time. */
const PAUSE_MS = 1_000;

export interface SuspectsOptions {
  readonly catalogue: Pick<Catalogue, "instance">;
  readonly checker: Pick<Checker, "check">;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * The instances that calls could not reach. Each is checked at once, by the replica that noticed, whichever keeps house:
 * the next check from time to time may be a minute away.
 */
export interface Suspects {
  report(instanceId: string): void;
  /** Whether an instance was reported a moment ago, and no check has found it healthy since. */
  has(instanceId: string): boolean;
  close(): Promise<void>;
}

export function createSuspects({ catalogue, checker, clock, logger }: SuspectsOptions): Suspects {
  /** Those that were reported since their last check began. */
  const reported = new Set<string>();
  /** Those of the schedule that were found healthy. */
  const cleared = new Set<string>();
  const schedule = createSchedule({
    clock,
    concurrency: CONCURRENCY,
    work: check,
    onError: (error) => logger.error({ err: error }, "an instance could not be checked"),
  });

  async function check(id: string, signal: AbortSignal): Promise<number | undefined> {
    const found = catalogue.instance(id);
    if (!reported.delete(id) || !found) {
      cleared.delete(id);
      return undefined;
    }
    const record = await checker.check(found.service, found.instance, signal);
    if (record?.status === HealthStatus.HEALTHY) {
      cleared.add(id);
    }
    // Until then, what was found has reached the catalogue.
    return PAUSE_MS;
  }

  return {
    report(id) {
      const found = catalogue.instance(id);
      // One that is known to be unhealthy is checked again soon anyway.
      if (
        !found ||
        found.instance.health === HealthStatus.UNHEALTHY ||
        found.service.spec.healthCheck?.kind.case === "none"
      ) {
        return;
      }
      reported.add(id);
      cleared.delete(id);
      if (!schedule.has(id)) {
        schedule.plan(id, 0);
      }
    },
    has: (id) => schedule.has(id) && !cleared.has(id),
    close: () => schedule.close(),
  };
}
