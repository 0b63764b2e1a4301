import { type Clock, DomainError, type Principal } from "@toolplane/framework";
import type { BreakerPermit, InstanceCall } from "@toolplane/framework/policies";
import { Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Input, Invoker, Output } from "../backends/invocation.ts";
import type { ResolvedInstance, ResolvedTool } from "../registry/registry.ts";
import { withBackendInfo } from "./backend-error.ts";
import { abandoned, type Judgement, judge, takenAway } from "./judge.ts";

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
  /** What watches for outliers was told that the attempt begins. */
  readonly observed: InstanceCall | undefined;
  /** Whether such calls usually take less than so many milliseconds, by far. */
  readonly suffices: (elapsedMs: number) => boolean;
  /** Called once when the attempt is over, with how it failed, if it did. */
  readonly onEnd: (failed: Judgement | undefined, durationMs: number, error: unknown) => void;
}

/** How an attempt failed. */
export class AttemptFailure extends Error {
  override readonly name = "AttemptFailure";
  readonly instanceId: string;
  /** What to tell the caller. */
  readonly error: unknown;
  readonly judgement: Judgement;

  constructor(instanceId: string, error: unknown, judgement: Judgement, cause: unknown) {
    super("an attempt failed", { cause });
    this.instanceId = instanceId;
    this.error = error;
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

  /** Takes the call away from an instance that does not answer. */
  takeAway(): void {
    this.#taken.abort(takenAway(this.instanceId));
  }

  /** Resolves when the first result is there, or the end; a tool with one result is then done. */
  async begin(): Promise<void> {
    try {
      this.#first = await this.#outputs.next();
      if (this.#first.done || this.#options.call.invoker.streaming === Streaming.UNARY) {
        this.#end(undefined);
        await this.#outputs.return?.();
      }
    } catch (error) {
      throw this.#fail(error);
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

  /** Gives up what was not read; without effect on an attempt that is over. */
  close(): void {
    if (this.#over) {
      return;
    }
    this.#end(abandoned);
    this.#taken.abort();
    // A generator that waits for its backend returns only when that has ended.
    this.#outputs.return?.().catch(() => undefined);
  }

  #fail(cause: unknown): AttemptFailure {
    const { call, signal, suffices } = this.#options;
    const error = signal.aborted
      ? signal.reason
      : this.#taken.signal.aborted
        ? this.#taken.signal.reason
        : cause;
    const judgement = judge({ error, signal, hadTime: suffices(this.#elapsed()) });
    this.#end(judgement, error);
    if (error instanceof DomainError) {
      return new AttemptFailure(this.instanceId, error, judgement, cause);
    }
    const origin = {
      tool: call.tool.name,
      service: call.tool.service,
      environment: call.tool.environment,
      version: call.tool.version,
      instance_id: this.instanceId,
    };
    return new AttemptFailure(this.instanceId, withBackendInfo(error, origin), judgement, cause);
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
    const durationMs = this.#elapsed();
    permit?.record(failed?.instance ?? "success", failed?.text, durationMs);
    observed?.end(failed?.tool ?? "success", durationMs);
    onEnd(failed, durationMs, error);
  }
}
