import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Clock } from "@toolplane/framework";
import type { Announcements } from "../storage/announcements.ts";

/** How often whoever waits for a run's end looks, since an announcement may be lost. */
const LOOK_INTERVAL_MS = 2_000;

export interface RunEndOptions<Run> {
  readonly announcements: Pick<Announcements<string>, "subscribe">;
  readonly clock: Clock;
  /** Throws when there is none. */
  readonly get: (runId: string) => Promise<Run>;
}

/** Returns what waits for the end of a run: it resolves with the run when it has ended, or as it is after `ms`. */
export function createRunEndWaiter<Run extends { readonly endTime?: Timestamp | undefined }>({
  announcements,
  clock,
  get,
}: RunEndOptions<Run>): (runId: string, ms: number, signal: AbortSignal) => Promise<Run> {
  /** Resolves when the run may have ended, or it is time to look. Listens from the beginning, so that nothing is missed. */
  function nextEnd(runId: string, signal: AbortSignal, patienceMs: number) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    const unsubscribe = announcements.subscribe((news) => {
      if (news === undefined || (news.kind === "ended" && news.runId === runId)) {
        resolve();
      }
    });
    signal.addEventListener("abort", wake);
    const stopTimer = clock.after(patienceMs, wake);
    return {
      promise,
      stop() {
        unsubscribe();
        signal.removeEventListener("abort", wake);
        stopTimer();
      },
    };
  }

  return async (runId, ms, signal) => {
    const deadline = clock.monotonic() + ms;
    for (;;) {
      const news = nextEnd(runId, signal, Math.min(deadline - clock.monotonic(), LOOK_INTERVAL_MS));
      try {
        const run = await get(runId);
        if (run.endTime !== undefined || signal.aborted || clock.monotonic() >= deadline) {
          return run;
        }
        await news.promise;
      } finally {
        news.stop();
      }
    }
  };
}
