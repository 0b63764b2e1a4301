import { type ContextValues, createContextKey, type HandlerContext } from "@connectrpc/connect";

/** What a call's answer carries before a handler adds to it. */
interface OwnHeaders {
  readonly header: Headers;
  readonly trailer: Headers;
}

const ownHeadersKey = createContextKey<OwnHeaders | undefined>(undefined, {
  description: "toolplane own headers of a call",
});

/**
 * Remembers what a call's answer carries from the start: Connect's own fields (content type, compression, status) and
 * what gates have set. An interceptor that answers in a handler's place has to send them, and cannot see them.
 *
 * `serve()` does this for every call. Other Connect servers pass it as their `requestGate`, or call it from theirs.
 *
 * @example
 * ```ts
 * connectNodeAdapter({ routes, interceptors: [idempotency.interceptor], requestGate: keepOwnHeaders });
 * ```
 */
export function keepOwnHeaders(context: HandlerContext): void {
  context.values.set(ownHeadersKey, { header: context.responseHeader, trailer: context.responseTrailer });
}

/** What the answer to a call has to carry in any case; undefined where nobody has remembered it. */
export function ownHeadersOf(values: ContextValues): OwnHeaders | undefined {
  return values.get(ownHeadersKey);
}
