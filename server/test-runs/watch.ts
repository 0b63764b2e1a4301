import type { Clock } from "@toolplane/framework";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { TestRunProgress } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { EventLog, LogNews, LogPage } from "../event-log/event-log.ts";
import { createWatchers } from "../event-streams/watchers.ts";
import { isEnded } from "./event-bytes.ts";
import type { ProgressBoard } from "./progress.ts";
import { unknownRun } from "./refusals.ts";
import type { Runs } from "./runs.ts";

/** Time between two messages about progress. */
const PROGRESS_INTERVAL_MS = 250;

/** What a watcher of a run is told. */
export type RunNews =
  | { readonly kind: "connected"; readonly run: TestRun }
  | { readonly kind: "events"; readonly page: LogPage }
  | { readonly kind: "caught-up"; readonly sequence: number }
  | { readonly kind: "progress"; readonly progress: TestRunProgress }
  | { readonly kind: "heartbeat" };

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
  readonly progress: ProgressBoard;
  readonly clock: Clock;
}

export function createRunWatchers({ runs, eventLog, progress, clock }: RunWatchersOptions): RunWatchers {
  const watchers = createWatchers(eventLog);

  async function* watch(
    runId: string,
    after: number,
    signal: AbortSignal,
  ): AsyncGenerator<RunNews, void, undefined> {
    const run = await runs.get(runId);
    yield { kind: "connected", run };
    const shared = progress.join(runId);
    // What a database that is away costs is a message, not the watch.
    const progressAfter = (sequence: number) => shared.after(sequence).catch(() => undefined);
    try {
      yield* watchers.follow(runId, { after, signal, unknown: () => unknownRun(runId) }, (log, leave) =>
        interleave(log, leave, progressAfter, run.endTime !== undefined, clock),
      );
    } finally {
      shared.leave();
    }
  }

  return {
    watch,
    get size() {
      return watchers.size;
    },
    drain: () => watchers.drain(),
  };
}

/** What the log tells, with progress in between: soon after something has changed, and not too often. */
async function* interleave(
  log: AsyncGenerator<LogNews, void, undefined>,
  leave: () => void,
  progressAfter: (sequence: number) => Promise<TestRunProgress | undefined>,
  hasEnded: boolean,
  clock: Clock,
): AsyncGenerator<RunNews, void, undefined> {
  let told = 0;
  let isOver = hasEnded;
  let isCaughtUp = false;
  let isChanged = false;
  let nextProgressAt = 0;
  let pending = log.next();
  try {
    for (;;) {
      const patience: number | undefined =
        isCaughtUp && isChanged ? nextProgressAt - clock.monotonic() : undefined;
      const next: IteratorResult<LogNews, void> | undefined =
        patience === undefined ? await pending : await within(pending, patience, clock);
      if (next === undefined) {
        const progress = await progressAfter(told);
        isChanged = false;
        nextProgressAt = clock.monotonic() + PROGRESS_INTERVAL_MS;
        if (progress !== undefined) {
          yield { kind: "progress", progress };
        }
        continue;
      }
      if (next.done) {
        return;
      }
      const news: LogNews = next.value;
      switch (news.kind) {
        case "events": {
          const { first, events }: LogPage = news.page;
          told = first + events.length - 1;
          const last: Uint8Array | undefined = events.at(-1);
          isOver ||= last !== undefined && isEnded(last);
          isChanged = !isOver;
          yield news;
          if (isCaughtUp && isOver) {
            return;
          }
          break;
        }
        case "caught-up":
          told = news.sequence;
          isCaughtUp = true;
          isChanged = !isOver;
          yield news;
          break;
        case "idle":
          yield { kind: "heartbeat" };
          break;
      }
      pending = log.next();
    }
  } finally {
    // The log may still be waiting for news: it is told first that nobody does any more.
    leave();
    pending.catch(() => undefined);
    await log.return();
  }
}

/** Undefined when it takes longer than `ms`. */
async function within<T>(work: Promise<T>, ms: number, clock: Clock): Promise<T | undefined> {
  if (ms <= 0) {
    return undefined;
  }
  let cancel = () => {};
  const timeout = new Promise<undefined>((resolve) => {
    cancel = clock.after(ms, () => resolve(undefined));
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    cancel();
  }
}
