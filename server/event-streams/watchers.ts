import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { type EventLog, type LogNews, UnknownStreamError } from "../event-log/event-log.ts";

/** Who follows streams on this replica. */
export interface Watchers {
  /**
   * What `tell` makes of the log of a stream. Ends without an error when `signal` is aborted, and with UNAVAILABLE when
   * the server drains.
   *
   * @param tell gets the log, and how to leave it: the log may still be waiting for news, and is told first that nobody
   *   does any more
   * @param unknown what is thrown when there is no such stream, also when it is removed meanwhile
   */
  follow<T>(
    stream: string,
    options: { readonly after: number; readonly signal: AbortSignal; readonly unknown: () => Error },
    tell: (
      log: AsyncGenerator<LogNews, void, undefined>,
      leave: () => void,
    ) => AsyncGenerator<T, void, undefined>,
  ): AsyncGenerator<T, void, undefined>;
  /** How many follow now. */
  readonly size: number;
  /** Ends all following: clients go on at another server. */
  drain(): void;
}

export function createWatchers(eventLog: Pick<EventLog, "watch">): Watchers {
  const draining = new AbortController();
  const watchers = new Set<object>();

  return {
    async *follow(stream, { after, signal, unknown }, tell) {
      // Not `AbortSignal.any`, which is slow to be let go of where one of the signals lives long.
      const leave = new AbortController();
      const onAbort = () => leave.abort();
      signal.addEventListener("abort", onAbort);
      draining.signal.addEventListener("abort", onAbort);
      if (signal.aborted || draining.signal.aborted) {
        onAbort();
      }
      const key = {};
      watchers.add(key);
      try {
        yield* tell(eventLog.watch(stream, { after, signal: leave.signal }), onAbort);
      } catch (error) {
        throw error instanceof UnknownStreamError ? unknown() : error;
      } finally {
        watchers.delete(key);
        signal.removeEventListener("abort", onAbort);
        draining.signal.removeEventListener("abort", onAbort);
      }
      if (draining.signal.aborted && !signal.aborted) {
        throw shuttingDown();
      }
    },
    get size() {
      return watchers.size;
    },
    drain: () => draining.abort(),
  };
}

function shuttingDown(): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "SHUTTING_DOWN",
    message: "the server is shutting down: go on from the last event",
    retryAfterMs: 1_000,
  });
}
