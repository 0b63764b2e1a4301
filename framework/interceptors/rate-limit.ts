import type { DescMethod } from "@bufbuild/protobuf";
import {
  Code,
  type ConnectError,
  type Interceptor,
  type StreamRequest,
  type UnaryRequest,
} from "@connectrpc/connect";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { ServerReflection } from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionAlpha } from "@toolplane/gen/grpc/reflection/v1alpha/reflection_pb.js";
import { domainConnectError } from "../errors/connect-error.ts";
import type { RateLimit } from "../policies/rate-limit/gcra.ts";
import type { LimitDecision } from "../policies/rate-limit/limit-set.ts";
import type { Gate } from "./begin-call.ts";
import { callContextKey, principalOf } from "./call-context.ts";
import { callerKey, GLOBAL_LEVEL, type LimitedCall } from "./rate-limit-levels.ts";

export interface RateLimitOptions {
  /** What decides: `createLimitSet(callLevels(…))`, or `createSharedLimitSet({ levels: callLevels(…), … })`. */
  readonly limits: {
    take(call: LimitedCall): LimitDecision | undefined | Promise<LimitDecision | undefined>;
  };
  /** Services and methods that are never limited, as `package.Service` or `package.Service/Method`. Default: `defaultExempt`. */
  readonly exempt?: ReadonlySet<string> | undefined;
}

export interface RateLimitInterceptorOptions extends RateLimitOptions {
  /**
   * The address that a call comes from, such as `127.0.0.1:52114`, in servers that were not made with `serve()`. Without
   * it, callers who are not authenticated share one limit there.
   */
  readonly peerOf?: ((request: UnaryRequest | StreamRequest) => string | undefined) | undefined;
}

/** Whoever watches a server must be able to when it is at its limits: health, reflection and metrics. */
export const defaultExempt: ReadonlySet<string> = new Set([
  Health.typeName,
  ServerReflection.typeName,
  ServerReflectionAlpha.typeName,
  "toolplane.admin.v1.AdminService/GetMetrics",
]);

/** The headers that tell callers how their limits stand. */
export const rateLimitHeaders = {
  /** Calls a period. */
  limit: "X-RateLimit-Limit",
  /** Calls that may come at once now. */
  remaining: "X-RateLimit-Remaining",
  /** Seconds until there are as many of them as ever, when no calls come. */
  reset: "X-RateLimit-Reset",
} as const;

/** The peer of calls that come from the server's own process: what has caused them was counted already. */
export const LOCAL_PEER = "local";

/**
 * Refuses calls above their limits before their body is read, in servers that are made with `serve()`: goes after the
 * gate that authenticates. Every answer says how the tightest limit stands. A stream counts as one call, when it begins.
 *
 * @example
 * ```ts
 * const levels = callLevels({ global: { limit: 1000, periodMs: 60_000 }, caller: { limit: 100, periodMs: 60_000 } });
 * await serve({ …, gates: [authenticate, rateLimitGate({ limits: createLimitSet(levels) })] });
 * ```
 */
export function rateLimitGate({ limits, exempt }: RateLimitOptions): Gate {
  const isExempt = exemption(exempt);
  return (call, { method, responseHeader }) => {
    if (call.peer === LOCAL_PEER || isExempt(method)) {
      return;
    }
    const decision = limits.take({ method, caller: callerKey(call.principal, call.peer) });
    return decision instanceof Promise
      ? decision.then((later) => apply(later, responseHeader))
      : apply(decision, responseHeader);
  };
}

/**
 * The same for any Connect server. Here the body of a unary request has been read when it is refused, and the answer to a
 * call that was let through and fails does not say how its limit stands. A stream counts as one call, when it begins.
 */
export function rateLimit({ limits, exempt, peerOf }: RateLimitInterceptorOptions): Interceptor {
  const isExempt = exemption(exempt);
  return (next) => async (request) => {
    const served = request.contextValues.get(callContextKey)?.peer;
    if (served === LOCAL_PEER || isExempt(request.method)) {
      return next(request);
    }
    const caller = callerKey(principalOf(request.contextValues), served ?? peerOf?.(request));
    const decision = await limits.take({ method: request.method, caller });
    if (decision?.allowed === false) {
      throw rateLimitError(decision);
    }
    const response = await next(request);
    apply(decision, response.header);
    return response;
  };
}

/** RESOURCE_EXHAUSTED that says which limit was reached, and when to come again. */
export function rateLimitError(decision: LimitDecision): ConnectError {
  const { level, key, limit, retryAfterMs } = decision;
  const subject = level === GLOBAL_LEVEL ? level : `${level}:${key}`;
  const who = level === GLOBAL_LEVEL ? "the server has" : `${level} ${key} has`;
  const seconds = Math.max(1, Math.ceil(retryAfterMs / 1_000));
  return domainConnectError({
    code: Code.ResourceExhausted,
    reason: "RATE_LIMITED",
    message: `${who} reached the limit of ${inWords(limit)}: try again in ${seconds} s`,
    metadata: { level },
    retryAfterMs,
    quotas: [{ subject, description: inWords(limit) }],
    headers: { "Retry-After": String(seconds), ...headersOf(decision) },
  });
}

function apply(decision: LimitDecision | undefined, header: Headers): void {
  if (decision?.allowed === false) {
    throw rateLimitError(decision);
  }
  if (decision !== undefined) {
    for (const [name, value] of Object.entries(headersOf(decision))) {
      header.set(name, value);
    }
  }
}

function headersOf({ limit, remaining, resetMs }: LimitDecision): Record<string, string> {
  return {
    [rateLimitHeaders.limit]: String(limit.limit),
    [rateLimitHeaders.remaining]: String(remaining),
    [rateLimitHeaders.reset]: String(Math.ceil(resetMs / 1_000)),
  };
}

function inWords({ limit, periodMs, burst }: Required<RateLimit>): string {
  const period = periodMs % 1_000 === 0 ? `${periodMs / 1_000} s` : `${periodMs} ms`;
  return `${limit} ${limit === 1 ? "request" : "requests"} in ${period}, ${burst} at once`;
}

/** What a descriptor's name decides is decided once. */
export function exemption(exempt: ReadonlySet<string> = defaultExempt): (method: DescMethod) => boolean {
  const known = new WeakMap<DescMethod, boolean>();
  return (method) => {
    let answer = known.get(method);
    if (answer === undefined) {
      const { typeName } = method.parent;
      answer = exempt.has(typeName) || exempt.has(`${typeName}/${method.name}`);
      known.set(method, answer);
    }
    return answer;
  };
}
