import { Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { type Backoff, backoffDelay, sleep } from "./backoff.ts";

/** A connection that was lost and will be opened again. */
export interface Interruption {
  /** Why. Undefined: the server ended the stream, as it does when it stops. */
  readonly error: ConnectError | undefined;
  /** How many attempts in a row brought nothing, from 1. */
  readonly attempt: number;
  /** How long until the next attempt, in milliseconds. */
  readonly delayMs: number;
}

export interface ResumeOptions {
  /** Ends the stream when aborted: the iteration just finishes, no error is thrown. */
  readonly signal?: AbortSignal | undefined;
  /** The waits between attempts. */
  readonly backoff?: Backoff | undefined;
  /** A connection on which nothing arrives for so long counts as lost, in milliseconds. Default 45,000: three heartbeats. */
  readonly silenceMs?: number | undefined;
  /** Told of every lost connection, before the wait. */
  readonly onInterruption?: ((interruption: Interruption) => void) | undefined;
}

/**
 * A stream that opens its connection again whenever it is lost. `open` is called for every attempt and starts after what
 * was already delivered. Throws only what another attempt cannot heal, such as a missing permission.
 */
export async function* resumingStream<T>(
  open: (signal: AbortSignal) => AsyncIterable<T>,
  options: ResumeOptions = {},
): AsyncGenerator<T, void, undefined> {
  const caller = options.signal ?? new AbortController().signal;
  const wait = options.backoff?.sleep ?? sleep;
  let attempt = 0;
  while (!caller.aborted) {
    const connection = new AbortController();
    const leave = () => connection.abort(caller.reason);
    caller.addEventListener("abort", leave);
    let error: ConnectError | undefined;
    try {
      const events = open(connection.signal)[Symbol.asyncIterator]();
      for (;;) {
        const next = await withinSilence(events, connection, options.silenceMs ?? 45_000);
        if (next.done === true) break;
        attempt = 0;
        yield next.value;
      }
    } catch (reason) {
      error = ConnectError.from(reason);
    } finally {
      // Reached also when the consumer leaves the loop: nothing may go on in the background.
      caller.removeEventListener("abort", leave);
      connection.abort();
    }
    if (caller.aborted) return;
    if (error !== undefined && !isRetryable(error)) throw error;
    attempt += 1;
    const delayMs = Math.max(backoffDelay(attempt, options.backoff), pushBackMs(error));
    options.onInterruption?.({ error, attempt, delayMs });
    await wait(delayMs, caller);
  }
}

/** The next event, unless the connection stays silent for too long. Time that the consumer takes does not count. */
async function withinSilence<T>(
  events: AsyncIterator<T>,
  connection: AbortController,
  silenceMs: number,
): Promise<IteratorResult<T>> {
  const timer = setTimeout(
    () => connection.abort(new ConnectError(`nothing arrived for ${silenceMs} ms`, Code.Unavailable)),
    silenceMs,
  );
  try {
    return await events.next();
  } finally {
    clearTimeout(timer);
  }
}

/** Whether another attempt can succeed although nothing was changed. */
export function isRetryable(error: ConnectError): boolean {
  switch (error.code) {
    case Code.Canceled: // The server ended the stream, or the silence ran out: the caller's own signal was looked at before.
    case Code.Unknown: // What `fetch` makes of a lost connection.
    case Code.DeadlineExceeded:
    case Code.ResourceExhausted:
    case Code.Aborted:
    case Code.Internal: // What a reset HTTP/2 stream becomes.
    case Code.Unavailable:
    case Code.DataLoss:
      return true;
    case Code.InvalidArgument:
    case Code.NotFound:
    case Code.AlreadyExists:
    case Code.PermissionDenied:
    case Code.FailedPrecondition:
    case Code.OutOfRange:
    case Code.Unimplemented:
    case Code.Unauthenticated:
      return false;
  }
}

/** How long the server asks to stay away, in milliseconds. */
export function pushBackMs(error: ConnectError | undefined): number {
  const delay = error?.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return delay === undefined ? 0 : Number(delay.seconds) * 1000 + delay.nanos / 1e6;
}
