import type { Run } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { EventLog, LogNews } from "../event-log/event-log.ts";
import { createWatchers } from "../event-streams/watchers.ts";
import { unknownRun } from "./refusals.ts";
import type { Runs } from "./runs.ts";

/** What a watcher of a run is told. */
export type RunNews = { readonly kind: "connected"; readonly run: Run } | LogNews;

export interface RunWatchers {
  /**
   * Everything after an event, then what happens, until the run has ended. Ends without an error when `signal` is
   * aborted, and with UNAVAILABLE when the server drains.
   */
  watch(runId: string, after: number, signal: AbortSignal): AsyncGenerator<RunNews, void, undefined>;
  /** How many watch now. */
  readonly size: number;
  /** Ends all watching: clients go on at another server. */
  drain(): void;
}

export interface RunWatchersOptions {
  readonly runs: Pick<Runs, "get">;
  readonly eventLog: Pick<EventLog, "watch">;
}

export function createRunWatchers({ runs, eventLog }: RunWatchersOptions): RunWatchers {
  const watchers = createWatchers(eventLog);
  return {
    async *watch(runId, after, signal) {
      yield { kind: "connected", run: await runs.get(runId) };
      yield* watchers.follow(runId, { after, signal, unknown: () => unknownRun(runId) }, toldUntilLeft);
    },
    get size() {
      return watchers.size;
    },
    drain: () => watchers.drain(),
  };
}

async function* toldUntilLeft(
  log: AsyncGenerator<LogNews, void, undefined>,
  leave: () => void,
): AsyncGenerator<LogNews, void, undefined> {
  try {
    yield* log;
  } finally {
    leave();
  }
}
