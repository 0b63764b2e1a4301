import { type DescMethod, getOption, hasOption } from "@bufbuild/protobuf";
import { type Duration, durationMs, MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import {
  policy as policyOption,
  type RateLimitOptions,
  Sharing,
  tool as toolOption,
} from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { type RequiredRole, roleOf } from "../access/role-of.ts";
import type { RateLimit } from "../policies/rate-limit/gcra.ts";

/** How one method is protected. What is not set is as its annotations say, and without those as each field says. */
export interface MethodPolicy {
  /** Who may call, where callers are authenticated. Without annotation: see `roleOf`. */
  readonly role?: RequiredRole | undefined;
  /** A limit on all calls of the method together; false: none. Without annotation: none. */
  readonly rateLimit?: RateLimit | false | undefined;
  /** How many calls may run at once; `Infinity`: any number. Without annotation: any number. */
  readonly maxConcurrency?: number | undefined;
  /**
   * The deadline of a call that names none, and the latest that a call may name, in milliseconds. Without annotation: the
   * server's `maxTimeoutMs`.
   */
  readonly timeoutMs?: number | undefined;
  /** Whether identical requests in flight share one execution. Without annotation: when there are no side effects. */
  readonly sharing?: boolean | undefined;
  /** How often a client tries a call in all, where it may be repeated. Without annotation: 3. */
  readonly retryAttempts?: number | undefined;
  /** How long answers are kept, in milliseconds; 0: not at all. Without annotation: not at all. */
  readonly cacheTtlMs?: number | undefined;
}

/** By `package.Service/Method`. */
export type MethodPolicies = Readonly<Record<string, MethodPolicy>>;

/** What holds for a method in the end; undefined: nothing of its own. */
export interface ResolvedMethodPolicy {
  readonly role: RequiredRole;
  readonly rateLimit: RateLimit | undefined;
  readonly maxConcurrency: number | undefined;
  readonly timeoutMs: number | undefined;
  readonly sharing: boolean;
  readonly retryAttempts: number | undefined;
  readonly cacheTtlMs: number | undefined;
}

/**
 * What holds for each method: what is set here goes before the options `(toolplane.annotations.v1.policy)` and
 * `(toolplane.annotations.v1.tool).cache_ttl` of its descriptor. Worked out once for each method.
 */
export function methodPolicies(own: MethodPolicies = {}): (method: DescMethod) => ResolvedMethodPolicy {
  const known = new WeakMap<DescMethod, ResolvedMethodPolicy>();
  return (method) => {
    let found = known.get(method);
    if (found === undefined) {
      found = resolve(method, own[`${method.parent.typeName}/${method.name}`] ?? {});
      known.set(method, found);
    }
    return found;
  };
}

function resolve(method: DescMethod, own: MethodPolicy): ResolvedMethodPolicy {
  const annotated = hasOption(method, policyOption) ? getOption(method, policyOption) : undefined;
  const { cacheTtl } = hasOption(method, toolOption) ? getOption(method, toolOption) : {};
  return {
    role: own.role ?? roleOf(method),
    rateLimit: (own.rateLimit ?? toRateLimit(annotated?.rateLimit)) || undefined,
    maxConcurrency: own.maxConcurrency ?? (annotated?.maxConcurrency || undefined),
    timeoutMs: own.timeoutMs ?? positiveMs(annotated?.timeout),
    sharing: own.sharing ?? isShared(method, annotated?.sharing),
    retryAttempts: own.retryAttempts ?? (annotated?.retryAttempts || undefined),
    cacheTtlMs: own.cacheTtlMs ?? positiveMs(cacheTtl),
  };
}

function isShared(method: DescMethod, sharing: Sharing = Sharing.UNSPECIFIED): boolean {
  switch (sharing) {
    case Sharing.ON:
      return true;
    case Sharing.OFF:
      return false;
    default:
      return method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
  }
}

/** The period of a limit that names none. */
const DEFAULT_PERIOD_MS = 60_000;

function toRateLimit(annotated: RateLimitOptions | undefined): RateLimit | undefined {
  if (annotated === undefined || annotated.requests === 0) {
    return undefined;
  }
  const { requests, period, burst } = annotated;
  return {
    limit: requests,
    periodMs: positiveMs(period) ?? DEFAULT_PERIOD_MS,
    ...(burst > 0 && { burst }),
  };
}

/** A duration in milliseconds; undefined where there is none, or none that could pass. */
function positiveMs(duration: Duration | undefined): number | undefined {
  const ms = duration === undefined ? 0 : durationMs(duration);
  return ms > 0 ? ms : undefined;
}
