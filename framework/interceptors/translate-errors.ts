import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { abortReason, toConnectError } from "../errors/connect-error.ts";
import { explainReceiveFailure } from "../errors/receive-failure.ts";
import { abortable } from "./abortable.ts";
import { callContext } from "./call-context.ts";
import { type CallRecord, callRecord } from "./call-record.ts";

/**
 * Turns whatever a handler throws into what goes over the wire, and ends a call as soon as its signal is aborted, even
 * when the handler does not look at the signal: no caller waits longer than its deadline.
 */
export function translateErrors(): Interceptor {
  return (next) => async (request) => {
    const call = callContext(request.contextValues);
    const record = callRecord(request.contextValues);
    record.stage = "handling";

    function translate(error: unknown): ConnectError {
      const translated =
        request.signal.aborted && error === request.signal.reason
          ? abortReason(request.signal)
          : toConnectError(error, { ...call, signal: request.signal });
      record.failure = translated;
      return translated;
    }

    async function* translated<T>(messages: AsyncIterable<T>) {
      try {
        yield* messages;
      } catch (error) {
        throw translate(error);
      }
    }

    try {
      const response = await untilAbandoned(
        next(request.stream ? { ...request, message: received(request.message) } : request),
        request.signal,
        record,
      );
      return response.stream
        ? { ...response, message: translated(abortable(response.message, request.signal)) }
        : response;
    } catch (error) {
      throw translate(error);
    }
  };
}

/** As `untilAborted`, but for the listener: the call has one already. */
function untilAbandoned<T>(promise: Promise<T>, signal: AbortSignal, record: CallRecord): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
    }
    record.abandon = reject;
    promise.then(resolve, reject);
  });
}

/** The messages of a caller's stream; a malformed one is the caller's mistake, not ours. */
async function* received<T>(messages: AsyncIterable<T>) {
  try {
    yield* messages;
  } catch (error) {
    const failure = ConnectError.from(error, Code.InvalidArgument);
    explainReceiveFailure(failure);
    throw failure;
  }
}
