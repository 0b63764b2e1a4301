import type { DescMethod } from "@bufbuild/protobuf";
import {
  Code,
  type ConnectError,
  type Interceptor,
  type StreamRequest,
  type StreamResponse,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { type Clock, systemClock } from "../clock.ts";
import { domainConnectError } from "../errors/connect-error.ts";
import { AFTERLIFE_MS } from "./concurrency-limit.ts";
import { methodPolicies } from "./method-policy.ts";

export interface MethodConcurrencyOptions {
  /** How many calls of a method may run at once; undefined: any number. Default: what its annotation says. */
  readonly maxOf?: (method: DescMethod) => number | undefined;
  /** What refused callers are told to wait, in milliseconds. Default: 1,000. */
  readonly retryAfterMs?: number;
  readonly clock?: Clock;
}

interface Places {
  readonly max: number;
  taken: number;
}

type Next = ReturnType<Interceptor>;

/**
 * Lets as many calls of a method run at once as `(toolplane.annotations.v1.policy).max_concurrency` says, streams
 * included, from their first to their last message. More are refused with RESOURCE_EXHAUSTED, not queued. A handler that
 * goes on although its caller has left counts for 10 s more, and no longer.
 */
export function methodConcurrency(options: MethodConcurrencyOptions = {}): Interceptor {
  const { maxOf = annotatedMax, retryAfterMs = 1_000, clock = systemClock } = options;
  const places = new WeakMap<DescMethod, Places>();

  function placesOf(method: DescMethod): Places {
    let found = places.get(method);
    if (found === undefined) {
      found = { max: maxOf(method) ?? Number.POSITIVE_INFINITY, taken: 0 };
      places.set(method, found);
    }
    return found;
  }

  return (next) => (request) => {
    const place = placesOf(request.method);
    return place.max === Number.POSITIVE_INFINITY ? next(request) : takePlace(place, next, request);
  };

  async function takePlace(
    place: Places,
    next: Next,
    request: UnaryRequest | StreamRequest,
  ): Promise<UnaryResponse | StreamResponse> {
    const { method, signal } = request;
    if (place.taken >= place.max) {
      throw tooMany(method, place.max, retryAfterMs);
    }
    // What is over already would not say so again, and keep its place.
    signal.throwIfAborted();
    place.taken += 1;
    let streams = false;
    let stopWaiting: (() => void) | undefined;
    let held = true;
    function release(): void {
      if (held) {
        held = false;
        place.taken -= 1;
        stopWaiting?.();
        signal.removeEventListener("abort", onAbort);
      }
    }
    /** For streams that nobody reads to their end: Connect aborts it when the call is over, whatever its end. */
    function onAbort(): void {
      if (streams) {
        release();
      } else {
        stopWaiting = clock.after(AFTERLIFE_MS, release);
      }
    }
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      const response = await next(request);
      streams = response.stream;
      if (!response.stream || signal.aborted) {
        release();
        return response;
      }
      return { ...response, message: until(response.message, release) };
    } catch (error) {
      release();
      throw error;
    }
  }
}

async function* until<T>(messages: AsyncIterable<T>, over: () => void): AsyncGenerator<T> {
  try {
    yield* messages;
  } finally {
    over();
  }
}

const policyOf = methodPolicies();

function annotatedMax(method: DescMethod): number | undefined {
  return policyOf(method).maxConcurrency;
}

function tooMany(method: DescMethod, max: number, retryAfterMs: number): ConnectError {
  const name = `${method.parent.typeName}/${method.name}`;
  const description = `${max} ${max === 1 ? "call" : "calls"} at once`;
  return domainConnectError({
    code: Code.ResourceExhausted,
    reason: "TOO_MANY_CALLS",
    message: `${name} takes ${description}: try again later`,
    retryAfterMs,
    quotas: [{ subject: `method:${name}`, description }],
    headers: { "Retry-After": String(Math.ceil(retryAfterMs / 1_000)) },
  });
}
