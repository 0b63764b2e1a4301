import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import type { UnaryRequest, UnaryResponse } from "@connectrpc/connect";
import { type Clock, systemClock } from "../clock.ts";
import { createByteLru } from "../policies/cache/byte-lru.ts";
import { requestKey } from "./request-key.ts";
import { createHeaderFilter, sharedHeaders, sharingKey, withOwnHeaders } from "./share-response.ts";

/** Says of an answer that it is an earlier one: `true`. Its `age` is given in seconds (RFC 9111, section 5.1). */
export const staleHeader = "x-toolplane-stale";
/** Says of an answer that it stands in for the real one: `last-good` or `fixed`. */
export const fallbackHeader = "x-toolplane-fallback";

/** What answers unary calls that a breaker refuses. */
export interface CircuitFallback {
  /** Told about each unary call that succeeded. */
  remember?(request: UnaryRequest, response: UnaryResponse): void;
  /** An answer for a call that was refused; undefined: there is none, and the caller gets the refusal. */
  answer(request: UnaryRequest): UnaryResponse | undefined | Promise<UnaryResponse | undefined>;
}

export interface LastGoodResponseOptions {
  /** The oldest answer that is still given, in milliseconds. Default: 3,600,000. */
  readonly maxAgeMs?: number | undefined;
  /** The most bytes of answers to keep; those used longest ago go. Default: 16 MiB. */
  readonly maxBytes?: number | undefined;
  /**
   * Request headers that change what is answered. Default: none. The principal always counts, and where it is not known,
   * its credentials (`authorization`, `cookie`, `x-api-key`).
   */
  readonly keyHeaders?: readonly string[] | undefined;
  /** Whose answers may be given again. Default: methods without side effects (`NO_SIDE_EFFECTS`). */
  readonly methods?: ((method: DescMethodUnary) => boolean) | undefined;
  readonly clock?: Clock | undefined;
}

/** What an entry takes besides its message, in bytes: the key, the headers and what holds them together. */
const ENTRY_BYTES = 512;

/**
 * The last good answer to the same request of the same principal, marked with `x-toolplane-stale: true` and its `age`.
 * Answers with `cache-control: no-store` are not kept.
 *
 * On Connect servers other than `serve()`, `keepOwnHeaders` has to be their request gate.
 */
export function lastGoodResponse(options: LastGoodResponseOptions = {}): CircuitFallback {
  const { maxAgeMs = 3_600_000, maxBytes = 16 * 1024 * 1024, keyHeaders = [] } = options;
  const { methods = hasNoSideEffects, clock = systemClock } = options;
  const mayShare = createHeaderFilter();
  const answers = createByteLru<{
    readonly at: number;
    readonly message: Uint8Array;
    readonly header: Headers;
    readonly trailer: Headers;
  }>({ maxBytes });
  const keyOf = (request: UnaryRequest) => sharingKey(request) + requestKey(request, keyHeaders);

  return {
    remember(request, response) {
      if (methods(request.method) && !isNotToBeStored(response)) {
        const message = toBinary(response.method.output, response.message);
        const shared = sharedHeaders(response, request, mayShare);
        const answer = { at: clock.monotonic(), message, ...shared };
        answers.set(keyOf(request), answer, message.byteLength + ENTRY_BYTES);
      }
    },
    answer(request) {
      const found = methods(request.method) ? answers.get(keyOf(request)) : undefined;
      const ageMs = clock.monotonic() - (found?.at ?? Number.NEGATIVE_INFINITY);
      if (found === undefined || ageMs > maxAgeMs) {
        return undefined;
      }
      const header = new Headers(found.header);
      header.set(staleHeader, "true");
      header.set(fallbackHeader, "last-good");
      header.set("age", String(Math.floor(ageMs / 1_000)));
      // Fields of type `bytes` are parts of what is parsed.
      const message = fromBinary(request.method.output, found.message.slice());
      return toResponse(request, message, { header, trailer: new Headers(found.trailer) });
    },
  };
}

/**
 * The same answer for everyone, such as an empty list, marked with `x-toolplane-fallback: fixed`.
 *
 * @param messageFor the answer to a request; undefined: the caller gets the refusal
 */
export function fixedResponse(
  messageFor: (request: UnaryRequest) => MessageInitShape<DescMessage> | undefined,
): CircuitFallback {
  return {
    answer(request) {
      const init = messageFor(request);
      const header = new Headers({ [fallbackHeader]: "fixed" });
      return (
        init && toResponse(request, create(request.method.output, init), { header, trailer: new Headers() })
      );
    },
  };
}

function toResponse(
  request: UnaryRequest,
  message: UnaryResponse["message"],
  headers: { readonly header: Headers; readonly trailer: Headers },
): UnaryResponse {
  const { service, method } = request;
  return { stream: false, service, method, message, ...withOwnHeaders(request, headers) };
}

function hasNoSideEffects(method: DescMethodUnary): boolean {
  return method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
}

function isNotToBeStored({ header }: UnaryResponse): boolean {
  return /(?:^|[,\s])no-store\b/i.test(header.get("cache-control") ?? "");
}
