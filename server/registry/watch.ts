import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clock } from "@toolplane/framework";
import {
  type ServiceFilter,
  ServiceRefSchema,
  type WatchServicesResponse,
  WatchServicesResponseSchema,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import type { Catalogue, CatalogueChange } from "./catalogue.ts";
import { keyPredicate, servicePredicate } from "./filter.ts";
import { toService } from "./messages.ts";
import type { ServiceKey } from "./service-key.ts";

const HEARTBEAT_MS = 15_000;

export interface Watchers {
  /** Tells all watchers what has changed. */
  notify(changes: readonly CatalogueChange[]): void;
  /**
   * The matching services as they are, or those changed after `resumeRevision`; a synced mark; then every change, merged
   * per service for a watcher that reads slowly. Ends when `signal` is aborted or the watchers are closed.
   */
  watch(
    filter: ServiceFilter | undefined,
    resumeRevision: number | undefined,
    signal: AbortSignal,
  ): AsyncIterable<WatchServicesResponse>;
  close(): void;
}

export function createWatchers(catalogue: Catalogue, clock: Clock): Watchers {
  const watchers = new Set<Watcher>();
  let closed = false;

  return {
    notify(changes) {
      for (const watcher of watchers) {
        watcher.mark(changes.map(({ id }) => id));
      }
    },
    async *watch(filter, resumeRevision, signal) {
      if (closed || signal.aborted) {
        return;
      }
      const watcher = createWatcher(clock);
      const leave = () => watcher.end();
      signal.addEventListener("abort", leave, { once: true });
      watchers.add(watcher);
      try {
        yield* events(catalogue, clock, watcher, filter, resumeRevision);
      } finally {
        watchers.delete(watcher);
        watcher.end();
        signal.removeEventListener("abort", leave);
      }
    },
    close() {
      closed = true;
      for (const watcher of watchers) {
        watcher.end();
      }
    },
  };
}

type Wake = "changes" | "heartbeat" | "end";

/** What one watcher has yet to be told: the ids of services, each once. So it never holds more than there are services. */
interface Watcher {
  mark(ids: Iterable<string>): void;
  /** Takes what is marked. */
  take(): Iterable<string>;
  /** Resolves when there is something to do. */
  next(): Promise<Wake>;
  readonly ended: boolean;
  end(): void;
}

function createWatcher(clock: Clock): Watcher {
  let marked = new Set<string>();
  let ended = false;
  let wake = (_reason: Wake) => {};
  return {
    get ended() {
      return ended;
    },
    mark(ids) {
      for (const id of ids) {
        marked.add(id);
      }
      wake("changes");
    },
    take() {
      const taken = marked;
      marked = new Set();
      return taken;
    },
    async next() {
      if (ended) {
        return "end";
      }
      if (marked.size > 0) {
        return "changes";
      }
      const { promise, resolve } = Promise.withResolvers<Wake>();
      wake = resolve;
      const cancel = clock.after(HEARTBEAT_MS, () => resolve("heartbeat"));
      try {
        return await promise;
      } finally {
        cancel();
      }
    },
    end() {
      ended = true;
      marked.clear();
      wake("end");
    },
  };
}

async function* events(
  catalogue: Catalogue,
  clock: Clock,
  watcher: Watcher,
  filter: ServiceFilter | undefined,
  resumeRevision: number | undefined,
): AsyncGenerator<WatchServicesResponse, void, undefined> {
  const isMeant = servicePredicate(filter);
  const resumed = resumeRevision === undefined ? undefined : catalogue.changedAfter(resumeRevision);
  if (resumeRevision !== undefined && !resumed) {
    yield create(WatchServicesResponseSchema, { event: { case: "reset", value: {} } });
  }
  const present = catalogue.services().map(({ id }) => id);
  // What the watcher knows of. One that resumes may know of every service that its filter can mean.
  const isPossible = keyPredicate(filter);
  const told = new Set(resumed ? [...resumed, ...present].filter((id) => isPossible(toKey(id))) : []);
  watcher.mark(resumed ?? present);

  for (let wake: Wake = "changes"; wake !== "end"; wake = await watcher.next()) {
    if (wake === "heartbeat") {
      yield create(WatchServicesResponseSchema, {
        event: { case: "heartbeat", value: { time: timestampFromMs(clock.now()) } },
      });
      continue;
    }
    const revision = catalogue.revision;
    for (const id of watcher.take()) {
      if (watcher.ended) {
        return;
      }
      const service = catalogue.byId(id);
      if (service && isMeant(service)) {
        told.add(id);
        yield create(WatchServicesResponseSchema, { event: { case: "updated", value: toService(service) } });
      } else if (told.delete(id)) {
        yield create(WatchServicesResponseSchema, {
          event: { case: "removed", value: create(ServiceRefSchema, toKey(id)) },
        });
      }
    }
    yield create(WatchServicesResponseSchema, {
      event: { case: "synced", value: { revision: BigInt(revision) } },
    });
  }
}

function toKey(id: string): ServiceKey {
  const [name = "", environment = "", version = ""] = id.split("/");
  return { name, environment, version };
}
