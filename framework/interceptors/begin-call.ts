import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { type Clock, MAX_TIMER_MS } from "../clock.ts";
import { internalError, toConnectError } from "../errors/connect-error.ts";
import { fitIntoTrailers } from "../errors/fit-error.ts";
import { explainReceiveFailure } from "../errors/receive-failure.ts";
import type { Logger } from "../logging.ts";
import { anonymous, type CallContext, callContextKey } from "./call-context.ts";
import { type CallRecord, callRecord } from "./call-record.ts";
import { keepOwnHeaders } from "./own-headers.ts";
import { type FinishedCall, type ReportCallsOptions, reportCalls } from "./report-calls.ts";

export type { FinishedCall } from "./report-calls.ts";

/**
 * Decides whether a call may go on, after its headers and before its body was read: the place to authenticate and to
 * limit. Throwing refuses the call; setting `call.principal` says who calls.
 */
export type Gate = (call: CallContext, context: HandlerContext) => void | Promise<void>;

export interface BeginCallOptions extends ReportCallsOptions {
  readonly clock: Clock;
  readonly gates: readonly Gate[];
}

/** What Connect really hands to a gate: with `abort` it ends each call, once it knows what to answer. */
type EndableContext = HandlerContext & { abort(reason?: unknown): void };

/**
 * Begins every call, before its body is read: gives it its context, and arranges that its end is logged and reported.
 *
 * Connect calls the context's `abort` with the error that it is about to send. That is the only place to see, and to
 * explain, the failures before interceptors run (an unreadable body) and after them (an answer that cannot be
 * serialized).
 */
export function beginCall(options: BeginCallOptions): (context: HandlerContext) => void | Promise<void> {
  const { clock, gates } = options;
  const report = reportCalls(options);
  return (context) => {
    const record = callRecord(context.values);
    const started = clock.monotonic();
    const method = methodName(context.method);
    const call = createCallContext(
      {
        requestHeader: context.requestHeader,
        signal: context.signal,
        deadline: clock.now() + (context.timeoutMs() ?? MAX_TIMER_MS),
      },
      method,
      record,
      options.logger,
    );
    context.values.set(callContextKey, call);
    keepOwnHeaders(context);

    const endable = context as EndableContext;
    const abort = endable.abort;
    endable.abort = (reason) => {
      if (reason instanceof ConnectError) {
        explain(reason, record, call);
        fitIntoTrailers(reason);
        record.outcome = reason;
      } else if (reason !== undefined) {
        // Connect answers "internal error" to whatever is not a ConnectError.
        call.logger.error({ err: reason }, "a call failed outside of its handler");
        record.outcome = ConnectError.from(reason, Code.Internal);
      }
      abort(reason ?? callIsOver);
    };
    function onAbort() {
      const { reason } = context.signal;
      if (reason instanceof ConnectError) {
        record.outcome ??= reason;
      }
      record.stopReading(reason);
      record.abandon?.(reason);
    }
    if (context.signal.aborted) {
      onAbort();
    } else {
      context.signal.addEventListener("abort", onAbort, { once: true });
    }

    record.finish = () => {
      const { outcome } = record;
      const finished: FinishedCall = {
        method,
        protocol: context.protocolName as FinishedCall["protocol"],
        code: outcome === undefined ? "ok" : codeToString(outcome.code),
        durationMs: clock.monotonic() - started,
        correlationId: call.correlationId,
        principal: call.principal,
        peer: call.peer,
      };
      report(finished, outcome, context.service);
    };

    function refuse(error: unknown): never {
      record.failure = toConnectError(error, call);
      record.stage = "handling";
      throw record.failure;
    }
    try {
      // Gates that do not wait cost no turn of the queue.
      for (let index = 0; index < gates.length; index++) {
        const waiting = gates[index]?.(call, context);
        if (waiting !== undefined) {
          return passGates(waiting, gates.slice(index + 1), call, context).catch(refuse);
        }
      }
    } catch (error) {
      refuse(error);
    }
    return undefined;
  };
}

/** What the signals of calls that ended well are aborted with: to make one for each takes longer than all gates. */
const callIsOver = new DOMException("the call is over", "AbortError");

async function passGates(
  first: Promise<void>,
  others: readonly Gate[],
  call: CallContext,
  context: HandlerContext,
): Promise<void> {
  await first;
  for (const gate of others) {
    await gate(call, context);
  }
}

const methodNames = new WeakMap<DescMethod, string>();

/** `package.Service/Method`. */
function methodName(method: DescMethod): string {
  let name = methodNames.get(method);
  if (name === undefined) {
    name = `${method.parent.typeName}/${method.name}`;
    methodNames.set(method, name);
  }
  return name;
}

/** Makes an error that did not pass the interceptors fit to be sent. */
function explain(error: ConnectError, record: CallRecord, call: CallContext): void {
  if (record.stage === "receiving") {
    explainReceiveFailure(error);
  } else if (error !== record.failure && error.code === Code.Internal) {
    become(error, internalError(new Error(error.rawMessage, { cause: error.cause }), call));
  }
}

export function createCallContext(
  given: Pick<HandlerContext, "requestHeader" | "signal"> & Pick<CallContext, "deadline">,
  method: string,
  { correlationId, peer, principal = anonymous }: CallRecord,
  logger: Logger,
): CallContext {
  const { traceparent, tracestate } = traceContextOf(given.requestHeader);
  let own: Logger | undefined;
  return {
    correlationId,
    deadline: given.deadline,
    principal,
    // Made when first used: most calls log one line or none.
    get logger() {
      own ??= logger.child({ correlationId, method });
      return own;
    },
    traceparent,
    tracestate,
    peer,
    signal: given.signal,
  };
}

/** https://www.w3.org/TR/trace-context/: what cannot be read is dropped, and then so is the state that goes with it. */
function traceContextOf(header: Headers): Pick<CallContext, "traceparent" | "tracestate"> {
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

/** Gives an error that is about to be sent the content of another one. */
function become(target: ConnectError, source: ConnectError): void {
  const { code, rawMessage, message, details } = source;
  Object.assign(target, { code, rawMessage, message, details });
}
