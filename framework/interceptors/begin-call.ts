import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { type Clock, MAX_TIMER_MS } from "../clock.ts";
import { explainReceiveFailure, internalError, toConnectError } from "../errors/connect-error.ts";
import type { Logger } from "../logging.ts";
import { anonymous, type CallContext, callContextKey, type Principal } from "./call-context.ts";
import { type CallRecord, callRecord } from "./call-record.ts";

/** A finished call, as it is logged and measured. */
export interface FinishedCall {
  /** `package.Service/Method`. */
  readonly method: string;
  readonly protocol: "connect" | "grpc" | "grpc-web";
  /** `ok` or the name of the error code, such as `not_found`. */
  readonly code: string;
  readonly durationMs: number;
  readonly correlationId: string;
  readonly principal: Principal;
  readonly peer: string;
}

/**
 * Decides whether a call may go on, after its headers and before its body was read: the place to authenticate and to
 * limit. Throwing refuses the call; setting `call.principal` says who calls.
 */
export type Gate = (call: CallContext, context: HandlerContext) => void | Promise<void>;

export interface BeginCallOptions {
  readonly logger: Logger;
  readonly clock: Clock;
  /** Called once for every call, when it is over. */
  readonly onCall?: ((call: FinishedCall) => void) | undefined;
  readonly gates: readonly Gate[];
  /** Fully qualified names of services whose successful calls are logged at level `debug`. */
  readonly quietServices: ReadonlySet<string>;
}

/**
 * Begins every call, before its body is read: gives it its context, and arranges that its end is logged and reported.
 *
 * Connect aborts the context's signal exactly once at the end of each call, with the error that it is about to send,
 * or without one after success. That makes the signal the only place that sees every failure: those before
 * interceptors run (an unreadable body) and after (an answer that cannot be serialized), and lets them be explained.
 */
export function beginCall(options: BeginCallOptions): (context: HandlerContext) => Promise<void> {
  return async (context) => {
    const record = callRecord(context.values);
    const started = options.clock.monotonic();
    const method = `${context.service.typeName}/${context.method.name}`;
    const call = createCallContext(context, method, record, options);
    context.values.set(callContextKey, call);

    function end() {
      const failure = failureOf(context.signal.reason);
      if (failure instanceof ConnectError) {
        if (record.stage === "receiving") {
          explainReceiveFailure(failure);
        } else if (failure !== record.failure && failure.code === Code.Internal) {
          become(failure, internalError(failure.rawMessage, call));
        }
      } else if (failure !== undefined) {
        // Connect answers "internal error" to whatever is not a ConnectError.
        call.logger.error({ err: failure }, "a call failed outside of its handler");
      }
      record.stopReading(context.signal.reason);
      finish(failure === undefined ? "ok" : codeToString(codeOf(failure)), failure);
    }

    function finish(code: string, failure: unknown) {
      const finished: FinishedCall = {
        method,
        protocol: context.protocolName as FinishedCall["protocol"],
        code,
        durationMs: options.clock.monotonic() - started,
        correlationId: call.correlationId,
        principal: call.principal,
        peer: call.peer,
      };
      options.onCall?.(finished);
      const line = {
        code,
        durationMs: Math.round(finished.durationMs * 1000) / 1000,
        protocol: finished.protocol,
        peer: finished.peer,
        principal: finished.principal.id,
        ...(failure instanceof ConnectError ? { error: failure.rawMessage } : {}),
      };
      const quiet = failure === undefined && options.quietServices.has(context.service.typeName);
      call.logger[quiet ? "debug" : "info"](line, "call");
    }

    if (context.signal.aborted) {
      end();
    } else {
      context.signal.addEventListener("abort", end, { once: true });
    }

    try {
      for (const gate of options.gates) {
        await gate(call, context);
      }
    } catch (error) {
      const refusal = toConnectError(error, call);
      record.stage = "handling";
      record.failure = refusal;
      throw refusal;
    }
  };
}

function createCallContext(
  context: HandlerContext,
  method: string,
  { correlationId, peer }: CallRecord,
  { logger, clock }: BeginCallOptions,
): CallContext {
  let own: Logger | undefined;
  return {
    correlationId,
    deadline: clock.now() + (context.timeoutMs() ?? MAX_TIMER_MS),
    principal: anonymous,
    // Made when first used: most calls log one line or none.
    get logger() {
      own ??= logger.child({ correlationId, method });
      return own;
    },
    ...traceContextOf(context.requestHeader),
    peer,
    signal: context.signal,
  };
}

/** https://www.w3.org/TR/trace-context/: what cannot be read is dropped, and then so is the state that goes with it. */
export function traceContextOf(header: Headers): Pick<CallContext, "traceparent" | "tracestate"> {
  const traceparent = header.get("traceparent") ?? undefined;
  const valid =
    traceparent !== undefined &&
    /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:$|(?<!^00.*)-)/.test(
      traceparent,
    );
  return valid
    ? { traceparent, tracestate: header.get("tracestate") ?? undefined }
    : { traceparent: undefined, tracestate: undefined };
}

/** Without a reason, AbortController makes one up: that is how Connect reports success. */
function failureOf(reason: unknown): unknown {
  return reason instanceof DOMException && reason.name === "AbortError" ? undefined : reason;
}

function codeOf(failure: unknown): Code {
  return failure instanceof ConnectError ? failure.code : Code.Internal;
}

/** Gives an error that is about to be sent the content of another one. */
function become(target: ConnectError, source: ConnectError): void {
  const { code, rawMessage, message, details } = source;
  Object.assign(target, { code, rawMessage, message, details });
}
