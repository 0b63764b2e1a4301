import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import { isTransientDatabaseError } from "../storage/transient.ts";
import { type LogNews, type LogPage, UnknownStreamError, type WatchOptions } from "./event-log.ts";
import type { Follower } from "./follower.ts";
import type { Following } from "./following.ts";
import type { HeadReader } from "./heads.ts";
import type { Pages } from "./pages.ts";
import type { Turns } from "./turns.ts";

/** A database that does not answer is asked again this often, for so long, before the watch ends with its error. */
const RETRY_DELAY_MS = 500;
const RETRY_FOR_MS = 20_000;

export interface WatchParts {
  readonly following: Following;
  readonly heads: HeadReader;
  readonly pages: Pages;
  readonly turns: Turns;
  readonly clock: Clock;
  /** Silence after which a watcher is told that nothing happens. */
  readonly idleMs: number;
}

/** A watch has a position and nothing else: what it is told next is read when it asks. */
export async function* watchStream(
  parts: WatchParts,
  stream: string,
  { after = 0, signal }: WatchOptions,
): AsyncGenerator<LogNews, void, undefined> {
  const { following, heads, turns, clock, idleMs } = parts;
  const head = await orAborted(heads.read(stream), signal);
  if (signal.aborted) {
    return;
  }
  if (head === undefined) {
    throw new UnknownStreamError(`there is no stream "${stream}"`);
  }
  if (after > head.last) {
    throw aheadOf(stream, head.last, after);
  }
  const beginning = head.last;
  const follower = following.join(stream, head);
  try {
    const reader = createReader(parts.pages, clock);
    let position = after;
    let isCaughtUp = false;
    let quietSince = clock.monotonic();
    while (!signal.aborted) {
      if (follower.failure !== undefined) {
        throw follower.failure;
      }
      const news = await next();
      if (news !== undefined) {
        yield news;
        quietSince = clock.monotonic();
      } else if (follower.closed && position === follower.last) {
        return;
      }
    }

    /** Undefined: nothing to tell yet, or ever. */
    async function next(): Promise<LogNews | undefined> {
      // At first, what was there when the watch began and no more, so that it does catch up with a stream that grows.
      const target = isCaughtUp ? follower.last : beginning;
      if (position < target) {
        const page = await orAborted(reader.read(follower, position, target), signal);
        if (page === undefined) {
          await follower.wait(RETRY_DELAY_MS, signal);
          return idle();
        }
        await turns.take(weightOf(page));
        position += page.events.length;
        return { kind: "events", page };
      }
      if (!isCaughtUp) {
        isCaughtUp = true;
        return { kind: "caught-up", sequence: position };
      }
      if (follower.closed) {
        return undefined;
      }
      await follower.wait(Math.max(quietSince + idleMs - clock.monotonic(), 0), signal);
      return position === follower.last ? idle() : undefined;
    }

    function idle(): LogNews | undefined {
      const isDue = clock.monotonic() - quietSince >= idleMs;
      return isDue && !signal.aborted && follower.failure === undefined ? { kind: "idle" } : undefined;
    }
  } finally {
    following.leave(follower);
  }
}

/** Telling of an event costs about as much as telling of so many bytes. */
const BYTES_AN_EVENT = 1_024;

function weightOf({ events }: LogPage): number {
  return events.reduce((sum, { length }) => sum + 1 + length / BYTES_AN_EVENT, 0);
}

/** Reads pages, and bears with a database that is away for a while: undefined, then. */
function createReader(pages: Pages, clock: Clock) {
  let failingSince: number | undefined;
  return {
    async read({ id }: Follower, after: number, last: number): Promise<LogPage | undefined> {
      try {
        const page = await pages.read(id, after, last);
        failingSince = undefined;
        return page;
      } catch (error) {
        failingSince ??= clock.monotonic();
        if (isTransientDatabaseError(error) && clock.monotonic() - failingSince < RETRY_FOR_MS) {
          return undefined;
        }
        throw error;
      }
    },
  };
}

/** Undefined when the signal is aborted first; what comes of the work is no longer of interest then. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  work.catch(() => undefined);
  let onAbort = () => {};
  const aborted = new Promise<undefined>((resolve) => {
    onAbort = () => resolve(undefined);
  });
  signal.addEventListener("abort", onAbort);
  if (signal.aborted) {
    onAbort();
  }
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function aheadOf(stream: string, last: number, after: number): DomainError {
  return new DomainError({
    code: Code.OutOfRange,
    reason: "SEQUENCE_AHEAD",
    message: `"${stream}" has ${last} events, and not yet one with number ${after}: begin after ${last} or before`,
  });
}
