import type { Clock } from "@toolplane/framework";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Logger } from "pino";
import type { Catalogue, CatalogueChange, CatalogueService } from "./catalogue.ts";
import type { Discoverer } from "./discovery.ts";
import { callableInstances } from "./resolve.ts";
import { createSchedule, type Schedule } from "./schedule.ts";
import { describeKey } from "./service-key.ts";
import type { DiscoveryOutcome } from "./store.ts";
import { digestOf } from "./store-writes.ts";

/** How many services are asked at once. */
const CONCURRENCY = 8;
/** After a failure, when a service is asked again; doubled each time, up to the refresh interval. */
const FIRST_RETRY_MS = 1_000;
/** Times vary by this share, so that services registered together are not asked together for ever. */
const JITTER = 0.1;

export interface RefresherOptions {
  readonly catalogue: Catalogue;
  readonly discoverer: Discoverer;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Draws from [0, 1). */
  readonly random: () => number;
  readonly refreshIntervalMs: number;
  /** Stores what a discovery has led to and reports what has changed. */
  record(service: CatalogueService, outcome: DiscoveryOutcome): Promise<unknown>;
}

/** Learns the tools of all services again from time to time, and soon of those whose tools could not be learnt. */
export interface Refresher {
  follow(changes: readonly CatalogueChange[]): void;
  close(): Promise<void>;
}

export function startRefresher(options: RefresherOptions): Refresher {
  const { catalogue, discoverer, clock, logger, random, refreshIntervalMs, record } = options;
  /** How often in a row each service could not be asked. */
  const failures = new Map<string, number>();
  const schedule: Schedule = createSchedule({
    clock,
    concurrency: CONCURRENCY,
    work: refresh,
    onError: (error) => logger.error({ err: error }, "a service's tools could not be learnt again"),
  });

  function vary(ms: number): number {
    return ms * (1 - JITTER + 2 * JITTER * random());
  }

  async function refresh(id: string, signal: AbortSignal): Promise<number | undefined> {
    const service = catalogue.byId(id);
    const attempts = failures.get(id) ?? 0;
    const instances = service ? callableInstances(service) : [];
    // After a failure, another instance is asked.
    const instance = instances[attempts % instances.length];
    if (!service || !instance) {
      return undefined;
    }
    const outcome = await discoverer.discover(service, service.spec, instance.spec);
    if (signal.aborted) {
      return undefined;
    }
    if (!isKnown(service, outcome)) {
      try {
        await record(service, outcome);
      } catch (error) {
        logger.warn({ err: error, service: describeKey(service) }, "what was learnt could not be stored");
        return vary(FIRST_RETRY_MS);
      }
    }
    if (outcome.kind === "learnt") {
      catalogue.noteLearnt(id, new Date(clock.now()));
      failures.delete(id);
      return vary(refreshIntervalMs);
    }
    failures.set(id, attempts + 1);
    return vary(Math.min(refreshIntervalMs, FIRST_RETRY_MS * 2 ** Math.min(attempts, 30)));
  }

  function followOne({ id, before, after }: CatalogueChange): void {
    if (!after || !isRefreshable(after)) {
      schedule.forget(id);
      failures.delete(id);
    } else if (!schedule.has(id)) {
      schedule.plan(id, isLearnt(after) ? refreshIntervalMs * random() : vary(FIRST_RETRY_MS));
    } else if (before && !isLearnt(after)) {
      if (hasRecovered(before, after)) {
        failures.delete(id);
        schedule.plan(id, 0);
      } else if (isLearnt(before)) {
        schedule.plan(id, vary(FIRST_RETRY_MS));
      }
    }
  }

  const refresher: Refresher = {
    follow: (changes) => changes.forEach(followOne),
    close: () => schedule.close(),
  };
  refresher.follow(
    catalogue.services().map((service) => ({ id: service.id, before: undefined, after: service })),
  );
  return refresher;
}

/** What came with the registration does not change by itself. */
function isRefreshable({ spec }: CatalogueService): boolean {
  const kind = spec.source?.kind;
  switch (kind?.case) {
    case "descriptors":
      return false;
    case "utcpManual":
      return kind.value.manual.case === "url";
    case "grpcReflection":
    case undefined:
      return true;
  }
}

/** Whether the last attempt to learn the tools succeeded. */
function isLearnt({ tools, problems }: CatalogueService): boolean {
  return tools !== undefined && !problems.some(({ reason }) => reason === "STALE_TOOLS");
}

function hasRecovered(before: CatalogueService, after: CatalogueService): boolean {
  const isHealthy = ({ instances }: CatalogueService) =>
    instances.some(({ health }) => health === HealthStatus.HEALTHY);
  return isHealthy(after) && !isHealthy(before);
}

/** Whether the catalogue says already what the outcome says. */
function isKnown(service: CatalogueService, outcome: DiscoveryOutcome): boolean {
  const known = service.problems.filter(({ reason }) => reason !== "STALE_TOOLS");
  const sameProblems =
    known.length === outcome.problems.length &&
    outcome.problems.every(({ tool, reason, message }, index) => {
      const problem = known[index];
      return problem?.tool === tool && problem.reason === reason && problem.message === message;
    });
  if (outcome.kind === "failed") {
    return sameProblems && !isLearnt(service);
  }
  const definition = outcome.definition && digestOf(outcome.definition);
  return (
    sameProblems &&
    isLearnt(service) &&
    service.tools?.digest === outcome.tools.digest &&
    service.definition === definition
  );
}
