import type { DescMethod } from "@bufbuild/protobuf";
import type { Interceptor, StreamRequest, UnaryRequest } from "@connectrpc/connect";
import { systemClock } from "../clock.ts";
import { createRetrier, type RetrierOptions } from "../policies/retry/retrier.ts";
import { methodPolicies } from "./method-policy.ts";
import { attemptHeader, attemptsDeadline } from "./retry-attempt.ts";
import { classifyFailure } from "./retry-failure.ts";
import { isRepeatable } from "./retry-repeatable.ts";

export interface RetryOptions extends Omit<RetrierOptions, "classify"> {
  /** Says what a failure means. Default: `classifyFailure`. */
  readonly classify?: RetrierOptions["classify"];
  /** Whether a call may reach the server twice. Default: `isRepeatable`. */
  readonly repeatable?: (request: UnaryRequest | StreamRequest) => boolean;
  /**
   * How often a call of a method is tried in all; undefined: `attempts`. Default: what the method's annotation
   * `(toolplane.annotations.v1.policy).retry_attempts` says.
   */
  readonly attemptsOf?: (method: DescMethod) => number | undefined;
}

type Next = ReturnType<Interceptor>;

/**
 * Repeats calls that failed and may be repeated, for any Connect client. One interceptor has one budget: use one for each
 * server that is called. Put it before the interceptors that each attempt has to pass, such as one that counts attempts.
 *
 * - Unary calls are repeated after a failure.
 * - Calls that answer with a stream are repeated until its first message is there, which is when the caller sees the
 *   response's headers: from then on, a failure is the stream's.
 * - Calls that send a stream are passed on as they are: what was sent of it is gone.
 *
 * Every further attempt has the header `grpc-previous-rpc-attempts`, and a deadline that is no later than the call's.
 *
 *     createGrpcTransport({ baseUrl, interceptors: [retry({ attempts: 4 })] })
 */
export function retry(options: RetryOptions = {}): Interceptor {
  const { repeatable = isRepeatable, attemptsOf = annotatedAttempts, clock = systemClock } = options;
  const retrier = createRetrier({
    ...options,
    clock,
    classify: options.classify ?? ((error) => classifyFailure(error, clock.now())),
  });

  return (next) => async (request) => {
    if (request.stream && request.method.methodKind !== "server_streaming") {
      return next(request);
    }
    const deadline = attemptsDeadline(request.header, clock.now());
    // Interceptors and transports may add to what they get; no attempt inherits that from the one before.
    const header = new Headers(request.header);
    const headerOf = (attempt: number) =>
      attempt === 1 ? request.header : attemptHeader(header, attempt, deadline, clock.now());
    const call = {
      repeatable: repeatable(request),
      signal: request.signal,
      deadline,
      attempts: attemptsOf(request.method),
    };
    if (!request.stream) {
      return retrier.run((attempt) => next({ ...request, header: headerOf(attempt) }), call);
    }
    const messages = await Array.fromAsync(request.message);
    return retrier.run(
      (attempt) => openStream(next, { ...request, header: headerOf(attempt), message: replay(messages) }),
      call,
    );
  };
}

async function* replay<T>(messages: readonly T[]): AsyncGenerator<T> {
  yield* messages;
}

/** Calls and waits for the first message. */
async function openStream(next: Next, request: StreamRequest): ReturnType<Next> {
  const response = await next(request);
  if (!response.stream) {
    return response;
  }
  const messages = response.message[Symbol.asyncIterator]();
  const first = await messages.next();
  return { ...response, message: resume(first, messages) };
}

/** All messages of a stream of which the first has been taken. */
function resume<T>(first: IteratorResult<T>, messages: AsyncIterator<T>): AsyncIterable<T> {
  let taken: IteratorResult<T> | undefined = first;
  return {
    [Symbol.asyncIterator]: () => ({
      next() {
        if (taken === undefined) {
          return messages.next();
        }
        const result = Promise.resolve(taken);
        taken = undefined;
        return result;
      },
      async return() {
        await messages.return?.();
        return { done: true, value: undefined };
      },
    }),
  };
}

const policyOf = methodPolicies();

function annotatedAttempts(method: DescMethod): number | undefined {
  return policyOf(method).retryAttempts;
}
