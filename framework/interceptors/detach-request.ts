import type { ContextKey, ContextValues, UnaryRequest } from "@connectrpc/connect";
import type { Clock } from "../clock.ts";
import type { Logger } from "../logging.ts";
import { type CallContext, callContextKey, type Principal } from "./call-context.ts";
import { CallValues } from "./call-values.ts";
import { timeoutMsOf } from "./timeout-header.ts";

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
  const timeoutMs = timeoutMsOf(header);
  return timeoutMs === undefined ? undefined : clock.now() + timeoutMs;
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
  const contextValues = new DetachedValues(request.contextValues, signal, deadline);
  return { ...request, signal, contextValues };
}

/** What is set goes here, what is not is the caller's; but for its context, which is only made when it is asked for. */
class DetachedValues implements ContextValues {
  readonly #caller: ContextValues;
  readonly #signal: AbortSignal;
  readonly #deadline: () => number | undefined;
  readonly #own = new CallValues();
  #context: CallContext | undefined;

  constructor(caller: ContextValues, signal: AbortSignal, deadline: () => number | undefined) {
    this.#caller = caller;
    this.#signal = signal;
    this.#deadline = deadline;
  }

  get<T>(key: ContextKey<T>): T {
    if (this.#own.has(key)) {
      return this.#own.get(key);
    }
    const value = this.#caller.get(key);
    // The ids of keys are unique.
    return key.id === callContextKey.id ? (this.#contextOf(value as CallContext | undefined) as T) : value;
  }

  set<T>(key: ContextKey<T>, value: T): this {
    this.#own.set(key, value);
    return this;
  }

  delete(key: ContextKey<unknown>): this {
    this.#own.set(key, key.defaultValue);
    return this;
  }

  #contextOf(call: CallContext | undefined): CallContext | undefined {
    this.#context ??= call && new DetachedCall(call, this.#signal, this.#deadline);
    return this.#context;
  }
}

/**
 * Everything else is the caller's own, also what is only made when it is asked for. To inherit it would be shorter, but
 * an object that becomes a prototype gets a hidden class of its own, for each call.
 */
class DetachedCall implements CallContext {
  readonly #caller: CallContext;
  readonly #deadline: () => number | undefined;
  readonly signal: AbortSignal;
  principal: Principal;

  constructor(caller: CallContext, signal: AbortSignal, deadline: () => number | undefined) {
    this.#caller = caller;
    this.#deadline = deadline;
    this.signal = signal;
    this.principal = caller.principal;
  }

  get deadline(): number {
    return this.#deadline() ?? this.#caller.deadline;
  }

  get correlationId(): string {
    return this.#caller.correlationId;
  }

  get logger(): Logger {
    return this.#caller.logger;
  }

  get traceparent(): string | undefined {
    return this.#caller.traceparent;
  }

  get tracestate(): string | undefined {
    return this.#caller.tracestate;
  }

  get peer(): string {
    return this.#caller.peer;
  }
}
