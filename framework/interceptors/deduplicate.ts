import { hash } from "node:crypto";
import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import {
  Code,
  ConnectError,
  type Interceptor,
  type StreamRequest,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { type Clock, systemClock } from "../clock.ts";
import { type CoalescerEvent, type CoalescerStats, createCoalescer } from "../policies/coalesce/coalescer.ts";
import { deadlineOf, detachRequest } from "./detach-request.ts";
import { localRequestKey } from "./request-key.ts";
import { copyError, copyResponse, createHeaderFilter, sharingKey } from "./share-response.ts";

/** Tells a caller that its answer is that of another one's call. */
export const deduplicatedHeader = "x-toolplane-deduplicated";

export interface DeduplicationOptions {
  /** A call that has been running for longer is not joined any more. Milliseconds, default 60,000. */
  readonly windowMs?: number;
  /** How many different requests in flight are remembered; others run unshared. Default 1,000. */
  readonly maxInFlight?: number;
  /**
   * Whether calls of a method are shared. Default: those without side effects (`NO_SIDE_EFFECTS`). A method that is
   * merely idempotent changes something: two callers who want that done may well rely on both calls having been made
   * in their order among others, so it is shared only where this says so.
   */
  readonly shares?: (method: UnaryRequest["method"]) => boolean;
  /** Names of request headers that change what is answered, such as one that names a tenant. Default: none. */
  readonly keyHeaders?: readonly string[];
  /**
   * Names of response headers and trailers that followers get besides those that describe the answer, such as `etag`
   * and `cache-control`. Never name what belongs to one call.
   */
  readonly sharedHeaders?: readonly string[];
  readonly clock?: Clock;
  /** The keys of its events are hashes of the requests. */
  readonly onEvent?: (event: CoalescerEvent) => void;
}

export interface MethodSharing {
  /** Calls of the method, whether they were shared or not. */
  readonly calls: number;
  /** Those that were answered by another one's call. */
  readonly deduplicated: number;
}

export interface Deduplication {
  /** For clients and servers alike. */
  readonly interceptor: Interceptor;
  stats(): CoalescerStats & {
    /** By `package.Service/Method`. */
    readonly methods: ReadonlyMap<string, MethodSharing>;
  };
}

/**
 * Lets identical unary requests in flight share one execution: same method, same principal (where it is not known, same
 * `authorization`, `cookie` and `x-api-key`), same message, same `keyHeaders`. Streams are not shared: their answers have no end by which one could wait for them, and each reader
 * its own pace.
 *
 * - One caller's leaving or deadline never touches the others; when the last has left, the execution is cancelled.
 *   The handler's `context.signal` and `callContext(context)` are those of the execution. Where its end comes from the
 *   first caller's deadline nevertheless (a client sends that along; a handler may ask `context.timeoutMs()`), those
 *   who have more time get a second execution.
 * - The first caller gets the answer as it is. The others get a copy of the message, the headers and trailers that
 *   describe the answer, and `x-toolplane-deduplicated: true`.
 * - A failure goes to everyone who waits, as an error of their own, and is not kept.
 *
 * Place it after authentication, limits and validation, so that each caller goes through them, and before what protects
 * or calls a backend.
 */
export function createDeduplication(options: DeduplicationOptions = {}): Deduplication {
  const { onEvent, keyHeaders = [], shares = hasNoSideEffects, clock = systemClock } = options;
  const mayShare = createHeaderFilter(options.sharedHeaders);
  const methods = new Map<DescMethod, { calls: number; deduplicated: number }>();
  const coalescer = createCoalescer<UnaryResponse>({
    ...(options.windowMs !== undefined && { windowMs: options.windowMs }),
    ...(options.maxInFlight !== undefined && { maxInFlight: options.maxInFlight }),
    // Keys may hold what requests hold.
    ...(onEvent !== undefined && {
      onEvent: (event) => onEvent({ ...event, key: hash("sha256", event.key, "base64url") }),
    }),
    clock,
    mayOutlive: (error) => error instanceof ConnectError && error.code === Code.DeadlineExceeded,
  });

  function count({ method }: UnaryRequest) {
    let counts = methods.get(method);
    if (counts === undefined) {
      counts = { calls: 0, deduplicated: 0 };
      methods.set(method, counts);
    }
    counts.calls++;
    return counts;
  }

  const interceptor: Interceptor = (next) => (request: UnaryRequest | StreamRequest) => {
    if (request.stream || !shares(request.method)) {
      return next(request);
    }
    const key = sharingKey(request) + localRequestKey(request, keyHeaders);
    const counts = count(request);
    return coalescer.run(
      key,
      async (signal, flight) => {
        const response = await next(detachRequest(request, signal, () => flight.deadline));
        if (response.stream) {
          throw new ConnectError("a unary call was answered with a stream", Code.Internal);
        }
        return response;
      },
      {
        signal: request.signal,
        deadline: deadlineOf(request, clock),
        copy(response) {
          counts.deduplicated++;
          const copy = copyResponse(response, request, mayShare);
          copy.header.set(deduplicatedHeader, "true");
          return copy;
        },
        copyError(error) {
          counts.deduplicated++;
          return copyError(error, mayShare);
        },
      },
    );
  };

  return {
    interceptor,
    stats: () => ({
      ...coalescer.stats(),
      methods: new Map(
        [...methods].map(([{ parent, name }, one]) => [`${parent.typeName}/${name}`, { ...one }]),
      ),
    }),
  };
}

function hasNoSideEffects({ idempotency }: UnaryRequest["method"]): boolean {
  return idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
}
