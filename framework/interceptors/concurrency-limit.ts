import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { systemClock } from "../clock.ts";
import { domainConnectError, errorDomain } from "../errors/connect-error.ts";
import { DomainError } from "../errors/domain-error.ts";
import {
  type AdaptiveConcurrency,
  type AdaptiveConcurrencyEvent,
  type AdaptiveConcurrencyOptions,
  type AdaptiveConcurrencyStats,
  createAdaptiveConcurrency,
  type WorkOutcome,
} from "../policies/concurrency/adaptive-concurrency.ts";
import type { Gate } from "./begin-call.ts";
import { callContextKey } from "./call-context.ts";
import { exemption, LOCAL_PEER } from "./rate-limit.ts";

export interface ConcurrencyLimitOptions extends Omit<AdaptiveConcurrencyOptions, "onEvent"> {
  /**
   * Names the limit that a method has part in; undefined: it is not limited. Default: one for each service, so that a
   * service whose own backends are slow takes nothing from the others.
   */
  readonly limitOf?: (method: DescMethod) => string | undefined;
  /** Services and methods that are never limited, as `package.Service` or `package.Service/Method`. Default: `defaultExempt`. */
  readonly exempt?: ReadonlySet<string> | undefined;
  /** What refused callers are told to wait, in milliseconds. Default: 1,000. */
  readonly retryAfterMs?: number;
  /** @param limit the name of the limit */
  readonly onEvent?: (event: AdaptiveConcurrencyEvent, limit: string) => void;
}

/** How long a call keeps its place when it is over and its handler goes on, in milliseconds. */
export const AFTERLIFE_MS = 10_000;

export interface ConcurrencyLimit {
  /** Refuses, for servers made with `serve()`, before a body is read. It only looks; `interceptor` is needed as well. */
  readonly gate: Gate;
  /** Takes places for calls and gives them back, in any Connect server. */
  readonly interceptor: Interceptor;
  stats(): readonly NamedConcurrencyStats[];
}

export interface NamedConcurrencyStats extends AdaptiveConcurrencyStats {
  readonly name: string;
}

/**
 * Sheds calls before they queue up, when calls take longer than they do without load. Refused calls get UNAVAILABLE with
 * `OVERLOADED` and a wait: another instance may well do them, and balancers and retries know that by this code.
 *
 * - Unary calls have a place while their handler works, from when their message has been read, so that slow callers burden
 *   nobody. A handler that goes on although its caller has left or its deadline has passed is still work: it keeps its place
 *   for 10 s, and no longer, so that one that hangs burdens nobody either.
 * - Calls with streams are refused when there is no place, but take none: they may last for days, and how long they do says
 *   nothing about load. `limits.maxRequests` bounds them.
 * - Failures and refusals are not measured, but what a deadline cut off is.
 * - Calls from the server's own process have been let in before, with the call that caused them.
 *
 * Put the interceptor last, next to the handlers: what an interceptor after it answers from a cache looks like work that
 * is fast.
 *
 *     const concurrency = createConcurrencyLimit();
 *     await serve({ …, gates: [concurrency.gate], interceptors: [concurrency.interceptor] });
 */
export function createConcurrencyLimit(options: ConcurrencyLimitOptions = {}): ConcurrencyLimit {
  const { limitOf = (method: DescMethod) => method.parent.typeName, onEvent, ...adaptive } = options;
  const { exempt, retryAfterMs = 1_000, ...limits } = adaptive;
  const { clock = systemClock } = limits;
  const isExempt = exemption(exempt);
  const byName = new Map<string, AdaptiveConcurrency>();
  const byMethod = new WeakMap<DescMethod, { readonly limiter: AdaptiveConcurrency | undefined }>();

  function limiterOf(method: DescMethod): AdaptiveConcurrency | undefined {
    let found = byMethod.get(method);
    if (found === undefined) {
      const name = isExempt(method) ? undefined : limitOf(method);
      found = { limiter: name === undefined ? undefined : named(name) };
      byMethod.set(method, found);
    }
    return found.limiter;
  }

  function named(name: string): AdaptiveConcurrency {
    let limiter = byName.get(name);
    if (limiter === undefined) {
      limiter = createAdaptiveConcurrency({ ...limits, onEvent: (event) => onEvent?.(event, name) });
      byName.set(name, limiter);
    }
    return limiter;
  }

  return {
    gate(call, { method }) {
      if (call.peer !== LOCAL_PEER && limiterOf(method)?.refuses()) {
        throw overloaded(retryAfterMs);
      }
    },
    interceptor: (next) => async (request) => {
      const { method, signal } = request;
      const limiter = limiterOf(method);
      if (limiter === undefined || request.contextValues.get(callContextKey)?.peer === LOCAL_PEER) {
        return next(request);
      }
      // What is over already would not say so again, and keep its place.
      signal.throwIfAborted();
      if (request.stream) {
        if (limiter.refuses()) {
          throw overloaded(retryAfterMs);
        }
        return next(request);
      }
      const permit = limiter.tryAcquire(`${method.parent.typeName}/${method.name}`);
      if (permit === undefined) {
        throw overloaded(retryAfterMs);
      }
      let stopWaiting: (() => void) | undefined;
      const onAbort = () => {
        stopWaiting = clock.after(AFTERLIFE_MS, () => permit.release("cut-off"));
      };
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        const response = await next(request);
        permit.release("done");
        return response;
      } catch (error) {
        permit.release(signal.aborted ? "cut-off" : outcomeOf(error));
        throw error;
      } finally {
        signal.removeEventListener("abort", onAbort);
        stopWaiting?.();
      }
    },
    stats: () => [...byName].map(([name, limiter]) => ({ name, ...limiter.stats() })),
  };
}

function outcomeOf(error: unknown): WorkOutcome {
  const code =
    error instanceof DomainError ? error.init.code : error instanceof ConnectError ? error.code : undefined;
  return code === Code.DeadlineExceeded ? "cut-off" : "ignored";
}

const REASON = "OVERLOADED";

/** Whether an error is what this server shed a call with. */
export function isShed(error: unknown): boolean {
  return (
    error instanceof ConnectError &&
    !error.isWireError &&
    error.code === Code.Unavailable &&
    error
      .findDetails(ErrorInfoSchema)
      .some(({ reason, domain }) => reason === REASON && domain === errorDomain)
  );
}

function overloaded(retryAfterMs: number): ConnectError {
  return domainConnectError({
    code: Code.Unavailable,
    reason: REASON,
    message: "the server has more to do than it can do in time: try again later, or elsewhere",
    retryAfterMs,
    headers: { "Retry-After": String(Math.ceil(retryAfterMs / 1_000)) },
  });
}
