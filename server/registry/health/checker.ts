import type { Clock } from "@toolplane/framework";
import { type BatcherOptions, type BatcherStats, createBatcher } from "@toolplane/framework/policies";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Logger } from "pino";
import { milliseconds } from "../../config/durations.ts";
import type { SecretResolver } from "../../config/secrets.ts";
import type { ConnectionPool } from "../../pool/connection-pool.ts";
import { isTransientDatabaseError } from "../../storage/transient.ts";
import {
  type Catalogue,
  type CatalogueInstance,
  type CatalogueService,
  isSameRegistration,
} from "../catalogue.ts";
import type { HealthWrite } from "../store.ts";
import { createTarget } from "../target.ts";
import type { HealthHistoryStore, HealthRecord } from "./history-store.ts";
import { type Finding, followGrpcHealth, probe } from "./probe.ts";

export interface CheckerOptions {
  readonly catalogue: Pick<Catalogue, "instance" | "noteChecked">;
  readonly pool: ConnectionPool;
  readonly secrets: SecretResolver;
  readonly history: HealthHistoryStore;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long one check may take where the service names no time, in milliseconds. */
  readonly timeoutMs: number;
  /** Whether an instance is the process that asks. */
  isLocal(instanceId: string): boolean;
  /** Stores results that differ from what the catalogue says. */
  record(updates: readonly HealthWrite[]): Promise<unknown>;
}

/** Checks instances and records what was found. */
export interface Checker {
  /** Checks an instance now. Undefined: aborted. */
  check(
    service: CatalogueService,
    instance: CatalogueInstance,
    signal: AbortSignal,
  ): Promise<HealthRecord | undefined>;
  /** Records what a gRPC server says about itself for as long as it says anything; returns when it stops. */
  follow(
    service: CatalogueService,
    instance: CatalogueInstance,
    grpcService: string,
    signal: AbortSignal,
  ): Promise<void>;
  /** Writes what was found so far. */
  flush(): Promise<void>;
  /** How what was found is being written. */
  writers(): readonly BatcherStats[];
}

/** A change of health waits this long for others, to be written with them. */
const RECORD_DELAY_MS = 10;
const HISTORY_DELAY_MS = 500;
/** As many of either wait at most; then the oldest give way to newer ones. */
const MAX_PENDING = 20_000;

const THIS_PROCESS: Finding = { status: HealthStatus.HEALTHY, message: "This process" };

export function createChecker(options: CheckerOptions): Checker {
  const { catalogue, pool, secrets, history, clock, logger, isLocal } = options;
  function createWriter<T>(
    name: string,
    given: Pick<BatcherOptions<T>, "maxDelayMs" | "maxItems" | "write">,
  ) {
    return createBatcher<T>({
      ...given,
      name,
      clock,
      maxPending: MAX_PENDING,
      whenFull: "drop-oldest",
      maxRetries: 2,
      isTransient: isTransientDatabaseError,
      onEvent(event) {
        if (event.kind === "rejected") {
          logger.warn({ err: event.error, count: event.items }, `${name} could not be stored`);
        } else if (event.kind === "dropped") {
          logger.warn({ count: event.items }, `${name} were dropped: the database is too slow`);
        }
      },
    });
  }

  const updates = createWriter<HealthWrite>("results of health checks", {
    maxDelayMs: RECORD_DELAY_MS,
    maxItems: 500,
    write: async (items) => {
      await options.record(items);
    },
  });
  const records = createWriter<HealthRecord>("the history of health checks", {
    maxDelayMs: HISTORY_DELAY_MS,
    maxItems: 1_000,
    write: (items) => history.append(items),
  });

  function note(
    service: CatalogueService,
    instance: CatalogueInstance,
    finding: Finding,
    latencyMs: number,
  ): HealthRecord {
    const { name, environment, version } = service;
    const { status, message } = finding;
    const time = new Date(clock.now());
    const record = { name, environment, version, instanceId: instance.id, status, message, latencyMs, time };
    void records.add(record);
    const known = catalogue.instance(instance.id)?.instance;
    const isChecked = service.spec.healthCheck?.kind.case !== "none";
    // Of one that was registered anew meanwhile, perhaps with another address, nothing was found.
    if (isChecked && known && isSameRegistration(known, instance)) {
      catalogue.noteChecked(instance.id, time);
      if (known.health !== status || known.healthMessage !== message) {
        void updates.add({ instanceId: instance.id, status, message, time });
      }
    }
    return record;
  }

  return {
    async check(service, instance, signal) {
      if (isLocal(instance.id)) {
        return note(service, instance, THIS_PROCESS, 0);
      }
      const { healthCheck } = service.spec;
      const timeoutMs = milliseconds(healthCheck?.timeout, options.timeoutMs);
      const deadline = new AbortController();
      const cancel = clock.after(timeoutMs, () => deadline.abort());
      const start = clock.monotonic();
      try {
        const finding = await probe({
          spec: healthCheck,
          target: () => createTarget(service.spec, instance.spec, secrets),
          pool,
          timeoutMs,
          signal: AbortSignal.any([signal, deadline.signal]),
        });
        return signal.aborted ? undefined : note(service, instance, finding, clock.monotonic() - start);
      } finally {
        cancel();
      }
    },

    async follow(service, instance, grpcService, signal) {
      let last: HealthStatus = instance.health;
      try {
        const target = createTarget(service.spec, instance.spec, secrets);
        await followGrpcHealth(target, grpcService, pool, signal, (finding) => {
          if (finding.status !== last) {
            last = finding.status;
            note(service, instance, finding, 0);
          }
        });
      } catch (error) {
        if (!signal.aborted) {
          logger.debug({ err: error, instance: instance.id }, "a server ended its health stream");
        }
      }
    },

    async flush() {
      await updates.flush();
      await records.flush();
    },

    writers: () => [updates.stats(), records.stats()],
  };
}
