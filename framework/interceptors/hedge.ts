import type { Interceptor, UnaryRequest } from "@connectrpc/connect";
import { systemClock } from "../clock.ts";
import { createHedger, type HedgerOptions } from "../policies/hedge/hedger.ts";
import { attemptHeader, attemptsDeadline } from "./retry-attempt.ts";
import { classifyFailure } from "./retry-failure.ts";
import { isRepeatable } from "./retry-repeatable.ts";

export interface HedgeOptions extends Omit<HedgerOptions, "classify"> {
  /** Says what a failure means. Default: `classifyFailure`. */
  readonly classify?: HedgerOptions["classify"];
  /** Whether a call may reach the server twice. Default: `isRepeatable`. */
  readonly repeatable?: (request: UnaryRequest) => boolean;
}

/**
 * Sends unary calls a second time when they take longer than usual, takes the first answer and cancels the rest, for any
 * Connect client. It pays where the attempts can reach different instances. Calls with streams are passed on as they are.
 *
 * Together with `retry`, put it after that one and give both the same budget: then an attempt is hedged, and what is still
 * a failure is repeated.
 *
 *     const budget = createRetryBudget();
 *     createGrpcTransport({ baseUrl, interceptors: [retry({ budget }), hedge({ budget })] })
 */
export function hedge(options: HedgeOptions = {}): Interceptor {
  const { repeatable = isRepeatable, clock = systemClock } = options;
  const hedger = createHedger({
    ...options,
    clock,
    classify: options.classify ?? ((error) => classifyFailure(error, clock.now())),
  });

  return (next) => async (request) => {
    if (request.stream) {
      return next(request);
    }
    const deadline = attemptsDeadline(request.header, clock.now());
    const header = new Headers(request.header);
    return hedger.run(
      (attempt, signal) =>
        next({
          ...request,
          signal,
          header: attempt === 1 ? request.header : attemptHeader(header, attempt, deadline, clock.now()),
        }),
      { repeatable: repeatable(request), signal: request.signal, deadline },
    );
  };
}
