import { type ContextValues, createContextKey, type HandlerContext } from "@connectrpc/connect";
import type { Logger } from "../logging.ts";

/** What a principal may do. Each role may do what the ones before it may: look, call tools, change things. */
export type Role = "reader" | "caller" | "operator";

/** Who calls. */
export interface Principal {
  /** A stable name, such as `user:ada` or `key:ci`; `anonymous` when callers are not authenticated. */
  readonly id: string;
  readonly role: Role;
}

/** Everyone, where callers are not authenticated: there is no one to hold anything back from. */
export const anonymous: Principal = { id: "anonymous", role: "operator" };

/** The circumstances of one call, the same for every protocol. */
export interface CallContext {
  /** Names the call in logs, errors and downstream calls: the caller's own id, else a generated one. */
  readonly correlationId: string;
  /** When the call must be over, in milliseconds since 1970. */
  readonly deadline: number;
  /** Who calls. Gates that authenticate set it. */
  principal: Principal;
  /** Writes lines that carry the correlation id and the method. */
  readonly logger: Logger;
  /** The caller's W3C trace context, to be passed on; undefined when there was none, or none that can be read. */
  readonly traceparent: string | undefined;
  readonly tracestate: string | undefined;
  /** The address of the other end of the connection, such as `127.0.0.1:52114`. */
  readonly peer: string;
  /** Aborted when the caller leaves, the deadline passes, the server shuts down, or the call is over. */
  readonly signal: AbortSignal;
}

export const callContextKey = createContextKey<CallContext | undefined>(undefined, {
  description: "toolplane call context",
});

/** For servers that were not made with `serve()`: who calls, set by whatever authenticates there. */
export const principalKey = createContextKey<Principal>(anonymous, { description: "toolplane principal" });

/** Who calls, in any Connect server or client: what `serve()` found out, else the value of `principalKey`. */
export function principalOf(values: ContextValues): Principal {
  return values.get(callContextKey)?.principal ?? values.get(principalKey);
}

/**
 * The circumstances of the call that a handler serves.
 *
 * @param context the handler's second parameter, or an interceptor's `request.contextValues`
 */
export function callContext(context: Pick<HandlerContext, "values"> | ContextValues): CallContext {
  const found = ("values" in context ? context.values : context).get(callContextKey);
  if (found === undefined) {
    throw new Error("the call has no context: it did not come in through serve()");
  }
  return found;
}
