import type { ContextKey, ContextValues, UnaryRequest } from "@connectrpc/connect";
import type { Clock } from "../clock.ts";
import { type CallContext, callContextKey } from "./call-context.ts";

/**
 * When a call's caller gives it up, in milliseconds since 1970, in any Connect server or client; undefined when it does
 * not say.
 */
export function deadlineOf(
  { header, contextValues }: Pick<UnaryRequest, "header" | "contextValues">,
  clock: Clock,
): number | undefined {
  const call = contextValues.get(callContextKey);
  if (call !== undefined) {
    return call.deadline;
  }
  const timeoutMs =
    grpcTimeoutMs(header.get("grpc-timeout")) ?? connectTimeoutMs(header.get("connect-timeout-ms"));
  return timeoutMs === undefined ? undefined : clock.now() + timeoutMs;
}

/** https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: up to 8 digits and a unit. */
function grpcTimeoutMs(value: string | null): number | undefined {
  const [, amount, unit = ""] = /^(\d{1,8})([HMSmun])$/.exec(value ?? "") ?? [];
  const unitMs: Readonly<Record<string, number>> = {
    H: 3_600_000,
    M: 60_000,
    S: 1_000,
    m: 1,
    u: 1e-3,
    n: 1e-6,
  };
  return amount === undefined ? undefined : Number(amount) * (unitMs[unit] ?? Number.NaN);
}

function connectTimeoutMs(value: string | null): number | undefined {
  return value !== null && /^\d{1,10}$/.test(value) ? Number(value) : undefined;
}

/**
 * A request that goes on when its caller has left: with a signal of its own, which handlers see as `context.signal` and
 * in `callContext(context)`, and with another deadline there. What is set in its context values stays in it.
 *
 * What `context.timeoutMs()` says, and the timeout that a client sends along, remain those of the caller.
 *
 * @param deadline in milliseconds since 1970; asked each time, because it may move
 */
export function detachRequest(
  request: UnaryRequest,
  signal: AbortSignal,
  deadline: () => number | undefined,
): UnaryRequest {
  return { ...request, signal, contextValues: detachedValues(request.contextValues, signal, deadline) };
}

function detachedValues(
  values: ContextValues,
  signal: AbortSignal,
  deadline: () => number | undefined,
): ContextValues {
  const own = new Map<symbol, unknown>();
  const call = values.get(callContextKey);
  if (call !== undefined) {
    own.set(callContextKey.id, detachedCall(call, signal, deadline));
  }
  const detached: ContextValues = {
    get<T>(key: ContextKey<T>): T {
      // `set` and the above put nothing but values of the key's type there.
      return own.has(key.id) ? (own.get(key.id) as T) : values.get(key);
    },
    set(key, value) {
      own.set(key.id, value);
      return detached;
    },
    delete(key) {
      own.set(key.id, key.defaultValue);
      return detached;
    },
  };
  return detached;
}

/** Everything else is the caller's own, also what is only made when it is asked for. */
function detachedCall(
  call: CallContext,
  signal: AbortSignal,
  deadline: () => number | undefined,
): CallContext {
  return Object.create(call, {
    signal: { value: signal, enumerable: true },
    deadline: { get: () => deadline() ?? call.deadline, enumerable: true },
  });
}
