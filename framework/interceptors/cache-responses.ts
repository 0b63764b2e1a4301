import { type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import {
  Code,
  ConnectError,
  type Interceptor,
  type StreamRequest,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { systemClock } from "../clock.ts";
import { domainConnectError } from "../errors/connect-error.ts";
import {
  type Answer,
  createResponseCache,
  type Load,
  type ResponseCache,
  type ResponseCacheOptions,
} from "../policies/cache/response-cache.ts";
import { deadlineOf, detachRequest } from "./detach-request.ts";
import { methodPolicies } from "./method-policy.ts";
import { requestKey } from "./request-key.ts";
import {
  copyError,
  createHeaderFilter,
  type HeaderFilter,
  sharedHeaders,
  sharingKey,
  withOwnHeaders,
} from "./share-response.ts";

/** Tells a caller where its answer comes from: `hit`, `stale` or `miss`. */
export const cacheHeader = "x-toolplane-cache";

export interface ResponseCachingOptions extends Omit<ResponseCacheOptions, "mayOutlive" | "ttlMs"> {
  /**
   * How long answers of a method are kept, in milliseconds; 0: not at all. Default: what the method's annotation
   * `(toolplane.annotations.v1.tool).cache_ttl` says, and not at all without one. Asked once for each method.
   */
  readonly ttlMs?: (method: DescMethod) => number | undefined;
  /** Names of request headers that change what is answered, such as one that names a tenant. Default: none. */
  readonly keyHeaders?: readonly string[];
  /** Names of response headers and trailers that are kept besides those that describe the answer, such as `etag`. */
  readonly sharedHeaders?: readonly string[];
  /** By what answers can be purged and excluded. Default: `package.Service` and `package.Service/Method`. */
  readonly tags?: (request: UnaryRequest) => readonly string[];
}

export interface ResponseCaching {
  /** For clients and servers alike. */
  readonly interceptor: Interceptor;
  /** For statistics and purging. */
  readonly cache: ResponseCache;
}

/**
 * Keeps answers of unary methods without side effects (`NO_SIDE_EFFECTS`) for as long as the method says, for each
 * principal, request message and `keyHeaders`; where the principal is not known, for each of its credentials
 * (`authorization`, `cookie`, `x-api-key`). Other methods, streams and failures pass untouched.
 *
 * - Responses carry `x-toolplane-cache: hit | stale | miss`, and kept ones their `age` in seconds (RFC 9111, 5.1).
 * - Kept are the message and the headers and trailers that describe it; what belongs to a call stays with it. An answer
 *   with `cache-control: no-store` is not kept.
 * - Identical requests that have to be loaded share one load. A caller's leaving or deadline does not touch the others.
 *
 * Place it after authentication, limits and validation, so that each caller goes through them, and before what protects
 * or calls a backend. It shares loads by itself: deduplication is for the methods that are not cached.
 */
export function createResponseCaching(options: ResponseCachingOptions): ResponseCaching {
  const { keyHeaders = [], tags = tagsOf, clock = systemClock, ttlMs: ttlOption, ...cacheOptions } = options;
  const loadTimeoutMs = options.loadTimeoutMs ?? 5 * 60_000;
  const mayShare = createHeaderFilter(options.sharedHeaders);
  const cache = createResponseCache({
    ...cacheOptions,
    clock,
    loadTimeoutMs,
    mayOutlive: (error) => error instanceof ConnectError && error.code === Code.DeadlineExceeded,
  });
  const ttls = new WeakMap<DescMethod, number>();

  function ttlOf(method: DescMethod): number {
    let ttl = ttls.get(method);
    if (ttl === undefined) {
      const hasNoSideEffects = method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
      ttl = hasNoSideEffects ? (ttlOption?.(method) ?? annotatedTtlMs(method)) : 0;
      ttls.set(method, ttl);
    }
    return ttl;
  }

  const interceptor: Interceptor = (next) => async (request: UnaryRequest | StreamRequest) => {
    if (request.stream) {
      return await next(request);
    }
    const ttlMs = ttlOf(request.method);
    if (ttlMs <= 0) {
      return await next(request);
    }

    /** What this call has loaded by itself. */
    let own: UnaryResponse | undefined;
    let ownFailure: unknown;
    const load: Load = async (signal, flight) => {
      try {
        const deadline = () => flight.deadline ?? clock.now() + loadTimeoutMs;
        const response = await next(detachRequest(request, signal, deadline));
        if (response.stream) {
          throw new ConnectError("a unary call was answered with a stream", Code.Internal);
        }
        own = response;
        const kept = !/(?:^|[,\s])no-store\b/i.test(response.header.get("cache-control") ?? "");
        return { value: encode(response, request, mayShare), ...(!kept && { ttlMs: 0 }) };
      } catch (error) {
        ownFailure = error;
        throw error;
      }
    };

    let answer: Answer;
    try {
      answer = await cache.getOrLoad(sharingKey(request) + requestKey(request, keyHeaders), load, {
        ttlMs,
        tags: tags(request),
        signal: request.signal,
        deadline: deadlineOf(request, clock),
      });
    } catch (error) {
      if (error === ownFailure || error === request.signal.reason) {
        throw error;
      }
      throw isTimeout(error) ? tooSlow(request.method, loadTimeoutMs) : copyError(error, mayShare);
    }
    switch (answer.state) {
      case "excluded":
        return own ?? decode(request, answer);
      case "miss":
        return withHeaders(own ?? decode(request, answer), { [cacheHeader]: "miss" });
      case "hit":
      case "stale":
        return withHeaders(decode(request, answer), {
          [cacheHeader]: answer.state,
          age: String(Math.floor(answer.ageMs / 1_000)),
        });
    }
  };
  return { interceptor, cache };
}

const policyOf = methodPolicies();

function annotatedTtlMs(method: DescMethod): number {
  return policyOf(method).cacheTtlMs ?? 0;
}

function tagsOf({ service, method }: UnaryRequest): string[] {
  return [service.typeName, `${service.typeName}/${method.name}`];
}

type HeaderList = readonly (readonly [name: string, value: string])[];

/** The headers and trailers as JSON, after their length in 4 bytes, and the message. */
function encode(response: UnaryResponse, request: UnaryRequest, mayShare: HeaderFilter): Uint8Array {
  const { header, trailer } = sharedHeaders(response, request, mayShare);
  const head = Buffer.from(JSON.stringify([[...header], [...trailer]]));
  const message = toBinary(response.method.output, response.message);
  const value = new Uint8Array(4 + head.byteLength + message.byteLength);
  new DataView(value.buffer).setUint32(0, head.byteLength);
  value.set(head, 4);
  value.set(message, 4 + head.byteLength);
  return value;
}

/** Made anew for each caller, so that nothing that one of them changes reaches another one. */
function decode(request: UnaryRequest, { value }: Answer): UnaryResponse {
  const { service, method } = request;
  const buffer = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  const messageStart = 4 + buffer.readUInt32BE(0);
  // Only `encode` has written it.
  const [header, trailer] = JSON.parse(buffer.toString("utf8", 4, messageStart)) as [HeaderList, HeaderList];
  return {
    stream: false,
    service,
    method,
    ...withOwnHeaders(request, { header: toHeaders(header), trailer: toHeaders(trailer) }),
    // Fields of type `bytes` are parts of what is parsed.
    message: fromBinary(method.output, value.slice(messageStart)),
  };
}

function toHeaders(list: HeaderList): Headers {
  const headers = new Headers();
  for (const [name, value] of list) {
    headers.append(name, value);
  }
  return headers;
}

/** Headers of a response that came from `fetch` cannot be changed. */
function withHeaders(response: UnaryResponse, added: Readonly<Record<string, string>>): UnaryResponse {
  const header = new Headers(response.header);
  for (const [name, value] of Object.entries(added)) {
    header.set(name, value);
  }
  return { ...response, header };
}

function isTimeout(error: unknown): boolean {
  return error instanceof DOMException && error.name === "TimeoutError";
}

function tooSlow(method: DescMethod, ms: number): ConnectError {
  return domainConnectError({
    code: Code.DeadlineExceeded,
    reason: "LOAD_TIMEOUT",
    message: `${method.parent.typeName}/${method.name} did not answer within ${ms} ms`,
  });
}
