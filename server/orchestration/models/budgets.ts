import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import type { ModelBudget, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { milliseconds } from "../../config/durations.ts";
import type { Model, ModelGateway, TokenUsage } from "./model.ts";

/** What one piece of work for a model may use up. */
export interface Limits {
  readonly maxTurns: number;
  readonly maxTokens: number;
  /** Undefined: no limit. */
  readonly maxCostUsd: number | undefined;
  readonly maxTimeMs: number;
  readonly maxParallelCalls: number;
}

/** What turns have used up. */
export interface Spent {
  readonly turns: number;
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly outputTokens: number;
  readonly costUsd: number;
  /** True when the price of some of it is not known. */
  readonly costIncomplete: boolean;
  readonly toolCalls: number;
}

export const NOTHING_SPENT: Spent = {
  turns: 0,
  inputTokens: 0,
  cachedInputTokens: 0,
  outputTokens: 0,
  costUsd: 0,
  costIncomplete: false,
  toolCalls: 0,
};

/** The limits of a budget, with the defaults that its documentation names. */
export function limitsOf(budget: ModelBudget | undefined): Limits {
  return {
    maxTurns: budget?.maxTurns || 25,
    maxTokens: Number(budget?.maxTokens ?? 0n) || 1_000_000,
    maxCostUsd: budget?.maxCostUsd || undefined,
    maxTimeMs: milliseconds(budget?.maxTime, 0) || 10 * 60_000,
    maxParallelCalls: budget?.maxParallelCalls || 5,
  };
}

/** Refuses a limit on the cost of a model whose price is not known. */
export function checkPrice(limits: Limits, model: Model, gateway: Pick<ModelGateway, "costUsd">): void {
  // One of each kind: what nobody uses costs nothing, whatever its price.
  const each: TokenUsage = { inputTokens: 2, cachedInputTokens: 1, outputTokens: 1 };
  if (limits.maxCostUsd === undefined || gateway.costUsd(model, each) !== undefined) {
    return;
  }
  const setting = "orchestration.models[].input_price and output_price";
  throw new DomainError({
    code: Code.FailedPrecondition,
    reason: "UNKNOWN_PRICE",
    message:
      `budget.max_cost_usd: the price of model "${model.name}" is not known. Set ${setting} for it in the ` +
      "server's configuration, or leave this limit out",
    preconditions: [
      {
        type: "CONFIGURATION",
        subject: setting,
        description: `set the prices of model "${model.name}" in United States dollars for a million tokens`,
      },
    ],
  });
}

/** Ends the work when turns, tokens or money are used up. Asked before each turn and before a turn's calls are made. */
export function checkSpent(limits: Limits, spent: Spent): void {
  const tokens = spent.inputTokens + spent.outputTokens;
  if (spent.turns >= limits.maxTurns) {
    throw exceeded(
      "TURN_BUDGET",
      `the model has used ${spent.turns} of ${limits.maxTurns} turns without coming to an answer`,
      "budget.max_turns",
      { used: spent.turns, limit: limits.maxTurns },
    );
  }
  if (tokens >= limits.maxTokens) {
    throw exceeded(
      "TOKEN_BUDGET",
      `the model has used ${tokens} tokens, ${spent.inputTokens} read and ${spent.outputTokens} written, of ` +
        `${limits.maxTokens}`,
      "budget.max_tokens",
      { used: tokens, limit: limits.maxTokens },
    );
  }
  if (limits.maxCostUsd !== undefined && spent.costUsd >= limits.maxCostUsd) {
    throw exceeded(
      "COST_BUDGET",
      `the model has cost ${dollars(spent.costUsd)} of ${dollars(limits.maxCostUsd)}`,
      "budget.max_cost_usd",
      { used: spent.costUsd, limit: limits.maxCostUsd },
    );
  }
}

/** The time that work may take, over all workers. */
export interface TimeBudget {
  /** Throws TIME_BUDGET when nothing is left. */
  check(): void;
  /**
   * Does a part of the work with a signal that is aborted with `signal`, and when the time is over. Then it rejects with
   * TIME_BUDGET, whatever the part fails with.
   */
  within<T>(signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T>;
}

/** @param startTime when the work first began, in milliseconds since 1970 */
export function createTimeBudget(limits: Limits, startTime: number, clock: Clock): TimeBudget {
  const leftMs = () => startTime + limits.maxTimeMs - clock.now();
  const isOver = () =>
    exceeded(
      "TIME_BUDGET",
      `the work has taken ${seconds(clock.now() - startTime)} of ${seconds(limits.maxTimeMs)}`,
      "budget.max_time",
      { used: clock.now() - startTime, limit: limits.maxTimeMs },
    );

  function check(): void {
    if (leftMs() <= 0) {
      throw isOver();
    }
  }

  return {
    check,
    async within(signal, work) {
      check();
      const over = new AbortController();
      const cancel = clock.after(leftMs(), () => over.abort(isOver()));
      try {
        return await work(AbortSignal.any([signal, over.signal]));
      } catch (error) {
        throw over.signal.aborted && !signal.aborted ? over.signal.reason : error;
      } finally {
        cancel();
      }
    },
  };
}

/** Adds what a turn has used up. */
export function addTurn(spent: Spent, usage: TokenUsage, costUsd: number | undefined): Spent {
  return {
    ...spent,
    turns: spent.turns + 1,
    inputTokens: spent.inputTokens + usage.inputTokens,
    cachedInputTokens: spent.cachedInputTokens + usage.cachedInputTokens,
    outputTokens: spent.outputTokens + usage.outputTokens,
    costUsd: spent.costUsd + (costUsd ?? 0),
    costIncomplete: spent.costIncomplete || costUsd === undefined,
  };
}

/** As runs and events tell it. */
export function toUsage(spent: Spent): Omit<MessageInitShape<typeof UsageSchema>, "$typeName"> {
  return {
    ...spent,
    inputTokens: BigInt(spent.inputTokens),
    cachedInputTokens: BigInt(spent.cachedInputTokens),
    outputTokens: BigInt(spent.outputTokens),
  };
}

function exceeded(
  reason: string,
  used: string,
  field: string,
  numbers: { used: number; limit: number },
): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason,
    message: `The budget is used up: ${used}. Raise ${field}, or ask for less`,
    metadata: { field, used: String(numbers.used), limit: String(numbers.limit) },
  });
}

function dollars(amount: number): string {
  return `$${amount.toFixed(4)}`;
}

function seconds(ms: number): string {
  return `${Math.round(ms / 100) / 10} s`;
}
