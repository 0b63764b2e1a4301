import { type Clock, DomainError, type Principal } from "@toolplane/framework";
import type { BreakerPermit, InstanceCall } from "@toolplane/framework/policies";
import type { Input, Invoker, Output } from "../backends/invocation.ts";
import type { ResolvedInstance, ResolvedTool } from "../registry/registry.ts";
import { withBackendInfo } from "./backend-error.ts";
import { abandoned, type Judgement, judge, judged, takenAway } from "./judge.ts";
import type { Patience } from "./latencies.ts";
import { answersWithStream, isUnary } from "./streaming.ts";

/** What an attempt needs to know of the call that it is made for. */
export interface AttemptedCall {
  readonly tool: ResolvedTool;
  readonly invoker: Invoker;
  readonly inputs: readonly Input[];
  readonly principal: Principal;
  readonly headers: Headers;
  /** When the call must be over, in milliseconds since 1970. */
  readonly deadline: number;
}

export interface AttemptOptions {
  readonly call: AttemptedCall;
  readonly instance: ResolvedInstance;
  /** Aborted when the attempt is of no use any more; its reason is a ConnectError where that is the caller's. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly permit: BreakerPermit | undefined;
  /** What watches for outliers. */
  readonly observed: InstanceCall | undefined;
  /** What it means that such a call was not answered for so many milliseconds. */
  readonly patience: (elapsedMs: number) => Patience;
  /** Called once when the attempt is over, with how it failed, if it did, and how long it took to answer. */
  readonly onEnd: (failed: Judgement | undefined, durationMs: number, error: unknown) => void;
}

/** How an attempt failed. */
export class AttemptFailure extends Error {
  override readonly name = "AttemptFailure";
  readonly instanceId: string;
  /** What to tell the caller. `judgementOf` knows it. */
  readonly error: object;
  readonly judgement: Judgement;

  constructor(instanceId: string, error: object, judgement: Judgement, cause: unknown) {
    super("an attempt failed", { cause });
    this.instanceId = instanceId;
    this.error = judged(error, judgement);
    this.judgement = judgement;
  }
}

/** One call sent to one instance. */
export class Attempt {
  readonly instanceId: string;
  readonly #options: AttemptOptions;
  readonly #taken = new AbortController();
  readonly #startedAt: number;
  readonly #outputs: AsyncIterator<Output>;
  #first: IteratorResult<Output> | undefined;
  /** How long the first result took. What a stream takes after that is up to both sides. */
  #firstMs: number | undefined;
  #over = false;

  constructor(options: AttemptOptions) {
    const { call, instance, signal, clock } = options;
    this.#options = options;
    this.instanceId = instance.id;
    this.#startedAt = clock.monotonic();
    this.#outputs = call.invoker
      .invoke(call.inputs, {
        service: call.tool.service,
        target: instance.target(),
        principal: call.principal,
        headers: call.headers,
        timeoutMs: Math.max(call.deadline - clock.now(), 1),
        signal: AbortSignal.any([signal, this.#taken.signal]),
      })
      [Symbol.asyncIterator]();
  }

  /** Nothing that happens from now on is counted. */
  get over(): boolean {
    return this.#over;
  }

  /** The first result, or the end, is there. */
  get answered(): boolean {
    return this.#first !== undefined;
  }

  /** Takes the call away from an instance that does not answer. Without effect once it does. */
  takeAway(): void {
    if (!this.answered) {
      this.#taken.abort(takenAway(this.instanceId));
    }
  }

  /** Resolves when the first result is there, or the end; a tool with one result is then done. */
  async begin(): Promise<void> {
    try {
      this.#first = await this.#outputs.next();
    } catch (error) {
      throw this.#fail(error);
    }
    this.#firstMs = this.#elapsed();
    this.#options.observed?.end("success", this.#firstMs);
    if (this.#first.done || isUnary(this.#options.call.invoker.streaming)) {
      this.#end(undefined);
      this.#leave();
    }
  }

  /** The results, to be read once. */
  async *results(): AsyncGenerator<Output, void, undefined> {
    if (this.#first === undefined || this.#first.done) {
      return;
    }
    yield this.#first.value;
    if (this.#over) {
      return;
    }
    try {
      for (;;) {
        const next = await this.#outputs.next();
        if (next.done) {
          this.#end(undefined);
          return;
        }
        yield next.value;
      }
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /** Gives up what was not read, which is no failure of a stream; without effect on an attempt that is over. */
  close(): void {
    if (this.#over) {
      return;
    }
    this.#end(this.answered ? undefined : abandoned);
    this.#taken.abort();
    this.#leave();
  }

  /** Not waited for: a generator that waits for its backend returns only when that has ended. */
  #leave(): void {
    this.#outputs.return?.().catch(() => undefined);
  }

  #fail(cause: unknown): AttemptFailure {
    const { call, signal, patience } = this.#options;
    const error = signal.aborted
      ? signal.reason
      : this.#taken.signal.aborted
        ? this.#taken.signal.reason
        : cause;
    const judgement = judge({
      error,
      signal,
      // Nobody can say when a stream should bring something.
      patience: answersWithStream(call.invoker.streaming) ? "short" : patience(this.#elapsed()),
    });
    this.#end(judgement, error);
    const origin = {
      tool: call.tool.name,
      service: call.tool.service,
      environment: call.tool.environment,
      version: call.tool.version,
      instance_id: this.instanceId,
    };
    const told =
      error instanceof DomainError
        ? new DomainError({ ...error.init, metadata: { ...origin, ...error.init.metadata } })
        : withBackendInfo(error, origin);
    return new AttemptFailure(this.instanceId, told, judgement, cause);
  }

  #elapsed(): number {
    return this.#options.clock.monotonic() - this.#startedAt;
  }

  #end(failed: Judgement | undefined, error?: unknown): void {
    if (this.#over) {
      return;
    }
    this.#over = true;
    const { permit, observed, onEnd } = this.#options;
    const durationMs = this.#firstMs ?? this.#elapsed();
    permit?.record(failed?.instance ?? "success", failed?.text, durationMs);
    observed?.end(failed?.tool ?? "success", durationMs);
    onEnd(failed, durationMs, error);
  }
}
