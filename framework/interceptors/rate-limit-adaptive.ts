import {
  Code,
  ConnectError,
  type Interceptor,
  type StreamRequest,
  type UnaryRequest,
} from "@connectrpc/connect";
import { type Clock, systemClock } from "../clock.ts";
import { domainConnectError } from "../errors/connect-error.ts";
import {
  type AdaptiveRate,
  AdaptiveRateError,
  type RateOutcome,
  type RatePermit,
} from "../policies/rate-limit/adaptive-rate.ts";

export interface AdaptiveRateInterceptorOptions {
  /** The rate that a call is under; undefined: it does not wait. */
  readonly rateOf: (request: UnaryRequest | StreamRequest) => AdaptiveRate | undefined;
  readonly clock?: Clock | undefined;
}

/**
 * For clients of weak backends: each call waits for its turn, and how it ends adapts the rate. Whoever gives up, or whose
 * deadline passes, leaves the line.
 *
 * Of unary calls the latency counts too. A stream waits once, before it begins, and counts as a success when it ends
 * well; its duration says nothing about load. Whoever stops reading says nothing either.
 *
 * Calls that get no turn end with RESOURCE_EXHAUSTED, `ADAPTIVE_RATE_QUEUE_FULL` or `ADAPTIVE_RATE_WAITED_TOO_LONG`.
 */
export function adaptiveRate({ rateOf, clock = systemClock }: AdaptiveRateInterceptorOptions): Interceptor {
  return (next) => async (request) => {
    const rate = rateOf(request);
    if (rate === undefined) {
      return next(request);
    }
    const permit = await rate.acquire(request.signal).catch((error: unknown) => {
      throw explain(error);
    });
    const began = clock.monotonic();
    try {
      const response = await next(request);
      if (response.stream) {
        return { ...response, message: judged(response.message, permit, request.signal) };
      }
      permit.done("success", clock.monotonic() - began);
      return response;
    } catch (error) {
      permit.done(outcomeOf(error, request.signal));
      throw error;
    }
  };
}

async function* judged<T>(messages: AsyncIterable<T>, permit: RatePermit, signal: AbortSignal) {
  try {
    yield* messages;
    permit.done("success");
  } catch (error) {
    permit.done(outcomeOf(error, signal));
    throw error;
  } finally {
    permit.done("ignored");
  }
}

/** Whether a failure says that the backend has too much to do. */
function outcomeOf(error: unknown, signal: AbortSignal): RateOutcome {
  switch (ConnectError.from(error).code) {
    case Code.Unavailable:
    case Code.ResourceExhausted:
    case Code.DeadlineExceeded:
    case Code.Internal:
    case Code.Unknown:
    case Code.DataLoss:
      return "failure";
    case Code.Canceled:
      // Cancelled by the backend is not cancelled by the caller.
      return signal.aborted ? "ignored" : "failure";
    case Code.InvalidArgument:
    case Code.NotFound:
    case Code.AlreadyExists:
    case Code.PermissionDenied:
    case Code.FailedPrecondition:
    case Code.Aborted:
    case Code.OutOfRange:
    case Code.Unimplemented:
    case Code.Unauthenticated:
      return "ignored";
  }
}

function explain(error: unknown): unknown {
  return error instanceof AdaptiveRateError
    ? domainConnectError({
        code: error.reason === "CLOSED" ? Code.Unavailable : Code.ResourceExhausted,
        reason: `ADAPTIVE_RATE_${error.reason}`,
        message: error.message,
        retryAfterMs: error.retryAfterMs,
        cause: error,
      })
    : error;
}
