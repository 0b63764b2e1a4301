import { Code, ConnectError, type ConnectRouter, type HandlerContext } from "@connectrpc/connect";
import {
  Health as HealthService,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "@toolplane/gen/grpc/health/v1/health_pb.js";

/** What a server says about one of its services, or, under the name `""`, about itself as a whole. */
export type HealthState = "SERVING" | "NOT_SERVING" | "UNKNOWN";

/** The health service of one server. */
export interface Health {
  /** Adds `grpc.health.v1.Health` to a router. */
  readonly routes: (router: ConnectRouter) => void;
  /** The state of a service; undefined when the server knows no service of that name. */
  get(service: string): HealthState | undefined;
  /** Sets the state of a service, a new one or one that is known; without effect after `drain`. */
  set(service: string, state: HealthState): void;
  /** Says once and for all that nothing is served any more, while watches go on, so that clients turn away. */
  drain(): void;
  /** Drains, and ends every watch, present and future, once it has told so. */
  close(): void;
}

/**
 * Implements `grpc.health.v1` as https://github.com/grpc/grpc/blob/master/doc/health-checking.md describes it.
 *
 * A watcher is told the state as it is and then every change. It has no queue: one that reads slowly misses states in
 * between, but never the last.
 *
 * @param services the full names of the services to know from the start, besides `""` for the server as a whole. All of
 *   them are NOT_SERVING until they are set.
 */
export function createHealth(services: Iterable<string> = []): Health {
  const states = new Map<string, HealthState>([["", "NOT_SERVING"]]);
  for (const service of services) {
    states.set(service, "NOT_SERVING");
  }
  const watchers = new Set<() => void>();
  let phase: "open" | "draining" | "closed" = "open";

  function wakeWatchers(): void {
    for (const wake of watchers) {
      wake();
    }
  }

  function drain(): void {
    if (phase !== "open") {
      return;
    }
    phase = "draining";
    for (const service of states.keys()) {
      states.set(service, "NOT_SERVING");
    }
    wakeWatchers();
  }

  async function* watch({ service }: { service: string }, { signal }: HandlerContext) {
    let wake = () => {};
    const onChange = () => wake();
    watchers.add(onChange);
    signal.addEventListener("abort", onChange);
    try {
      let sent: ServingStatus | undefined;
      while (!signal.aborted) {
        const status = wireStatus(states.get(service));
        if (status !== sent) {
          sent = status;
          yield { status };
        } else if (phase === "closed") {
          return;
        } else {
          // Nothing can have changed since the state was read, so no change is slept through.
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
      // A watch that ran out of time ends with DEADLINE_EXCEEDED; one that the server closes ends well.
      signal.throwIfAborted();
    } finally {
      watchers.delete(onChange);
      signal.removeEventListener("abort", onChange);
    }
  }

  return {
    routes(router) {
      router.service(HealthService, {
        check({ service }) {
          const state = states.get(service);
          if (state === undefined) {
            throw new ConnectError(`the server knows no service "${service}"`, Code.NotFound);
          }
          return { status: wireStatus(state) };
        },
        list: () => ({
          statuses: Object.fromEntries(
            [...states].map(([service, state]) => [service, { status: wireStatus(state) }]),
          ),
        }),
        watch,
      });
    },
    get: (service) => states.get(service),
    set(service, state) {
      if (phase === "open" && states.get(service) !== state) {
        states.set(service, state);
        wakeWatchers();
      }
    },
    drain,
    close() {
      drain();
      phase = "closed";
      wakeWatchers();
    },
  };
}

function wireStatus(state: HealthState | undefined): ServingStatus {
  switch (state) {
    case "SERVING":
      return ServingStatus.SERVING;
    case "NOT_SERVING":
      return ServingStatus.NOT_SERVING;
    case "UNKNOWN":
      return ServingStatus.UNKNOWN;
    case undefined:
      return ServingStatus.SERVICE_UNKNOWN;
  }
}
