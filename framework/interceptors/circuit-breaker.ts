import {
  Code,
  ConnectError,
  type Interceptor,
  type StreamRequest,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { type Clock, systemClock } from "../clock.ts";
import type { CombinedPermit } from "../policies/breaker/acquire-all.ts";
import { type BreakerSet, createBreakerSet } from "../policies/breaker/breaker-set.ts";
import type { Outcome } from "../policies/breaker/state.ts";
import type { CircuitFallback } from "./circuit-breaker-fallback.ts";
import { codeOfError, outcomeForBreaker, outcomeOfError } from "./circuit-breaker-outcome.ts";
import { createPatience, type Patience } from "./circuit-breaker-patience.ts";
import { circuitOpenError } from "./circuit-breaker-refusal.ts";
import { deadlineOf } from "./detach-request.ts";

export interface CircuitBreakerOptions {
  /** The breakers, to be listed and reset. Default: a set of its own, with the defaults of `createBreaker`. */
  readonly breakers?: BreakerSet | undefined;
  /** Where it is used: on a server, failures of that server's own backends do not count. Default: `client`. */
  readonly side?: "client" | "server" | undefined;
  /**
   * The names of the breakers that a call has to pass. Default: `service/package.Service` and
   * `method/package.Service/Method`.
   */
  readonly namesOf?: ((request: UnaryRequest | StreamRequest) => readonly string[]) | undefined;
  /**
   * What a failed call means to the breaker of that name. Default: what was found with `outcomeOfError`, but that a breaker
   * whose name begins with `service/` only counts calls that did not reach the service.
   */
  readonly outcomeFor?: ((outcome: Outcome, error: unknown, breaker: string) => Outcome) | undefined;
  /** What answers unary calls that are refused. Default: nothing, they fail. */
  readonly fallback?: CircuitFallback | undefined;
  readonly clock?: Clock | undefined;
}

/**
 * Lets calls through while what they call is well, and refuses them at once while it is not, with UNAVAILABLE, reason
 * CIRCUIT_OPEN. For any Connect client or server.
 *
 * - Which errors count, `outcomeOfCode` and `outcomeOfError` say; the caller's mistakes and a caller that leaves never do.
 * - DEADLINE_EXCEEDED counts unless the call had less than twice the time that calls of the method usually take: a
 *   caller in a hurry does not shut the method for others. It counts when the deadline passes, even when the handler
 *   goes on. It does not count for a stream that has brought a message, nor while the caller is still sending one.
 * - The result of a stream is how it ends. While a breaker probes, the first message is success: streams that last for
 *   hours would otherwise keep it from closing. A stream that fails because of the caller's own messages says nothing.
 * - The duration of a call, for breakers that count slow ones, is the time to its end, of a server stream the time to its
 *   first message. Calls that send a stream are never slow: how long they take is up to the caller.
 *
 * Place it inside of retries, where each attempt asks again, and of deduplication.
 */
export function circuitBreaker(options: CircuitBreakerOptions = {}): Interceptor {
  const { side = "client", namesOf = defaultNames, clock = systemClock, fallback } = options;
  const { outcomeFor = outcomeForBreaker } = options;
  const breakers = options.breakers ?? createBreakerSet({ defaults: { clock } });
  const patience = createPatience();

  return (next) => async (request) => {
    const names = namesOf(request);
    const permit = breakers.acquire(names);
    if (!permit.allowed) {
      const answer = request.stream ? undefined : await fallback?.answer(request);
      if (answer === undefined) {
        throw circuitOpenError(permit);
      }
      return answer;
    }
    const call = new WatchedCall(request, permit, names, { side, clock, patience, outcomeFor });
    try {
      const response = await next(
        request.stream ? { ...request, message: call.watchSent(request.message) } : request,
      );
      if (response.stream) {
        return { ...response, message: call.watchReceived(response.message) };
      }
      call.succeed();
      if (!request.stream) {
        remember(fallback, request, response);
      }
      return response;
    } catch (error) {
      call.fail(error);
      throw error;
    }
  };
}

/** What cannot be kept is an answer all the same. */
function remember(
  fallback: CircuitFallback | undefined,
  request: UnaryRequest,
  response: UnaryResponse,
): void {
  try {
    fallback?.remember?.(request, response);
  } catch {
    // Then there will be no fallback for it.
  }
}

/** The share of a caller's time after which its leaving is taken for the end of that time. */
const TIME_IS_UP = 0.9;

const namesOfMethods = new WeakMap<UnaryRequest["method"] | StreamRequest["method"], readonly string[]>();

function defaultNames({ method }: UnaryRequest | StreamRequest): readonly string[] {
  let names = namesOfMethods.get(method);
  if (names === undefined) {
    const service = method.parent.typeName;
    names = [`service/${service}`, `method/${service}/${method.name}`];
    namesOfMethods.set(method, names);
  }
  return names;
}

interface Watch {
  readonly side: "client" | "server";
  readonly clock: Clock;
  readonly patience: Patience;
  readonly outcomeFor: (outcome: Outcome, error: unknown, breaker: string) => Outcome;
}

/** A call whose result the breakers wait for. They get one, whatever becomes of it. */
class WatchedCall {
  readonly #request: UnaryRequest | StreamRequest;
  readonly #permit: CombinedPermit;
  readonly #names: readonly string[];
  readonly #watch: Watch;
  readonly #began: number;
  /** On a server: how much time the caller gave. */
  readonly #timeoutMs: number;
  /** Of a stream: until its first message. */
  #durationMs: number | undefined;
  /** The caller has sent all of its stream. */
  #hasSent = false;
  #over = false;

  constructor(
    request: UnaryRequest | StreamRequest,
    permit: CombinedPermit,
    names: readonly string[],
    watch: Watch,
  ) {
    this.#request = request;
    this.#permit = permit;
    this.#names = names;
    this.#watch = watch;
    this.#began = watch.clock.monotonic();
    const deadline = watch.side === "server" ? deadlineOf(request, watch.clock) : undefined;
    this.#timeoutMs = deadline === undefined ? Number.POSITIVE_INFINITY : deadline - watch.clock.now();
    if (request.signal.aborted) {
      this.#abort();
    } else {
      request.signal.addEventListener("abort", this.#abort, { once: true });
    }
  }

  succeed(): void {
    if (this.#end()) {
      const ms = this.#duration();
      this.#watch.patience.succeeded(this.#request.method, ms);
      this.#permit.record("success", undefined, ms);
    }
  }

  fail(error: unknown): void {
    if (!this.#end()) {
      return;
    }
    const outcome = this.#outcomeOf(error);
    const text = ConnectError.from(error).message;
    for (const [index, permit] of this.#permit.permits.entries()) {
      permit.record(this.#watch.outcomeFor(outcome, error, this.#names[index] ?? ""), text, this.#duration());
    }
  }

  /** Nothing can be said about it. */
  leave(): void {
    if (this.#end()) {
      this.#permit.record("ignored");
    }
  }

  /** What the caller sends. That it fails is no fault of who receives it. */
  async *watchSent<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* messages;
      this.#hasSent = true;
    } catch (error) {
      this.leave();
      throw error;
    }
  }

  async *watchReceived<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      for await (const message of messages) {
        if (this.#durationMs === undefined) {
          this.#durationMs = this.#duration();
          if (this.#permit.probe) {
            this.succeed();
          }
        }
        yield message;
      }
      this.succeed();
    } catch (error) {
      this.fail(error);
      throw error;
    } finally {
      this.leave();
    }
  }

  readonly #abort = (): void => {
    const { reason } = this.#request.signal;
    if (reason instanceof ConnectError && reason.code === Code.DeadlineExceeded) {
      this.fail(reason);
    } else if (this.#timeIsUp()) {
      this.fail(new ConnectError("the caller's time is up", Code.DeadlineExceeded));
    } else {
      // The caller has left, or the server shuts down.
      this.leave();
    }
  };

  /** On a server: whether the deadline has come. Then the caller gives up too, and which of the two shows first is chance. */
  #timeIsUp(): boolean {
    return this.#watch.clock.monotonic() - this.#began >= this.#timeoutMs * TIME_IS_UP;
  }

  #outcomeOf(error: unknown): Outcome {
    const outcome = outcomeOfError(error, this.#watch.side);
    const ranOut = outcome === "failure" && codeOfError(error) === Code.DeadlineExceeded;
    return ranOut && !this.#wasDue() ? "ignored" : outcome;
  }

  /** Whether there should have been an answer by now. */
  #wasDue(): boolean {
    if (this.#durationMs !== undefined) {
      return false;
    }
    const { patience, clock } = this.#watch;
    return this.#sends()
      ? this.#hasSent
      : patience.wasEnough(this.#request.method, clock.monotonic() - this.#began);
  }

  #duration(): number {
    return this.#sends() ? 0 : (this.#durationMs ?? this.#watch.clock.monotonic() - this.#began);
  }

  /** Whether the caller sends a stream. */
  #sends(): boolean {
    const { methodKind } = this.#request.method;
    return methodKind === "client_streaming" || methodKind === "bidi_streaming";
  }

  /** @returns false when it was over before */
  #end(): boolean {
    const ends = !this.#over;
    this.#over = true;
    if (ends) {
      this.#request.signal.removeEventListener("abort", this.#abort);
    }
    return ends;
  }
}
