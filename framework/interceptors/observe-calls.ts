import type { DescMethod } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type Interceptor,
  type StreamRequest,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { type Clock, MAX_TIMER_MS, systemClock } from "../clock.ts";
import { fitIntoTrailers } from "../errors/fit-error.ts";
import { createCallContext } from "./begin-call.ts";
import { callContextKey } from "./call-context.ts";
import { type CallRecord, callRecordKey } from "./call-record.ts";
import { correlationIdHeader, correlationIdOf, requestIdHeader } from "./correlation-id.ts";
import { deadlineOf } from "./detach-request.ts";
import { LOCAL_PEER } from "./rate-limit.ts";
import { type FinishedCall, type ReportCallsOptions, reportCalls } from "./report-calls.ts";

export interface ObserveCallsOptions extends Omit<ReportCallsOptions, "quietServices"> {
  /** Fully qualified names of services whose successful calls are logged at level `debug`. Default: none. */
  readonly quietServices?: ReadonlySet<string> | undefined;
  /** The address that a call comes from, such as `127.0.0.1:52114`. Default: `unknown`. */
  readonly peerOf?: ((request: UnaryRequest | StreamRequest) => string | undefined) | undefined;
  /** The deadline of a method's calls that name none, and the latest that they may name, in milliseconds. Default: none. */
  readonly timeoutOf?: ((method: DescMethod) => number | undefined) | undefined;
  readonly clock?: Clock | undefined;
}

/**
 * For Connect servers that were not made with `serve()`: gives each call the context that other interceptors and
 * `callContext()` look for, keeps its deadline, writes its log line and reports its end. Has to be the first.
 *
 * What Connect answers before interceptors run is not seen, such as a message that cannot be read. What
 * `context.timeoutMs()` says remains what the caller has asked for.
 */
export function observeCalls(options: ObserveCallsOptions): Interceptor {
  const { logger, onCall, clock = systemClock, quietServices = new Set(), timeoutOf, peerOf } = options;
  const report = reportCalls({ logger, onCall, quietServices });

  return (next) => async (given) => {
    const started = clock.monotonic();
    const method = `${given.service.typeName}/${given.method.name}`;
    const peer = peerOf?.(given);
    const correlationId = correlationIdOf(
      given.header.get(correlationIdHeader) ?? given.header.get(requestIdHeader),
    );
    const record: CallRecord = {
      stage: "handling",
      failure: undefined,
      outcome: undefined,
      finish: () => {},
      abandon: undefined,
      correlationId,
      // What a header may have brought is not believed to be this process.
      peer: peer === undefined || peer === LOCAL_PEER ? "unknown" : peer,
      stopReading: () => {},
    };
    const { signal, deadline, cancel } = limitTime(given, timeoutOf?.(given.method), clock);
    const call = createCallContext(
      { requestHeader: given.header, signal, deadline: deadline ?? clock.now() + MAX_TIMER_MS },
      method,
      record,
      logger,
    );
    given.contextValues.set(callRecordKey, record).set(callContextKey, call);

    record.finish = () => {
      record.finish = () => {};
      cancel();
      signal.removeEventListener("abort", onAbort);
      const { outcome } = record;
      const finished: FinishedCall = {
        method,
        protocol: protocolOf(given),
        code: outcome === undefined ? "ok" : codeToString(outcome.code),
        durationMs: clock.monotonic() - started,
        correlationId,
        principal: call.principal,
        peer: record.peer,
      };
      report(finished, outcome, given.service);
    };
    function onAbort(): void {
      const { reason } = signal;
      if (reason instanceof ConnectError) {
        record.outcome ??= reason;
      }
      record.abandon?.(reason);
      record.finish();
    }
    signal.addEventListener("abort", onAbort, { once: true });

    function fail(reason: unknown): ConnectError {
      const error = ConnectError.from(reason, Code.Internal);
      error.metadata.set(correlationIdHeader, correlationId);
      fitIntoTrailers(error);
      record.outcome = error;
      record.finish();
      return error;
    }

    async function* observed<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
      try {
        yield* messages;
      } catch (error) {
        throw fail(error);
      } finally {
        record.finish();
      }
    }

    try {
      const response = await next({ ...given, signal });
      response.header.set(correlationIdHeader, correlationId);
      if (response.stream) {
        return { ...response, message: observed(response.message) };
      }
      record.finish();
      return response as UnaryResponse;
    } catch (error) {
      throw fail(error);
    }
  };
}

interface LimitedTime {
  readonly signal: AbortSignal;
  /** In milliseconds since 1970; undefined: there is none. */
  readonly deadline: number | undefined;
  readonly cancel: () => void;
}

/** A signal that is aborted when the caller's time is up, or that of the method if that is sooner. */
function limitTime(
  request: UnaryRequest | StreamRequest,
  timeoutMs: number | undefined,
  clock: Clock,
): LimitedTime {
  const asked = deadlineOf(request, clock);
  const allowed = timeoutMs === undefined ? undefined : clock.now() + timeoutMs;
  if (timeoutMs === undefined || allowed === undefined || (asked !== undefined && asked <= allowed)) {
    return { signal: request.signal, deadline: asked, cancel: () => {} };
  }
  const controller = new AbortController();
  const follow = () => controller.abort(request.signal.reason);
  if (request.signal.aborted) {
    follow();
  }
  request.signal.addEventListener("abort", follow, { once: true });
  const cancelTimer = clock.after(timeoutMs, () =>
    controller.abort(new ConnectError("the operation timed out", Code.DeadlineExceeded)),
  );
  return {
    signal: controller.signal,
    deadline: allowed,
    cancel() {
      cancelTimer();
      request.signal.removeEventListener("abort", follow);
    },
  };
}

/** Interceptors are not told, but each protocol has its content types. */
function protocolOf({ header }: UnaryRequest | StreamRequest): FinishedCall["protocol"] {
  const type = header.get("content-type") ?? "";
  if (type.startsWith("application/grpc-web")) {
    return "grpc-web";
  }
  return type.startsWith("application/grpc") ? "grpc" : "connect";
}
