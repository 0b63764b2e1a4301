import type { Model, TokenUsage } from "./model.ts";

const PER_TOKENS = 1_000_000;

/**
 * What a turn cost; undefined where the price of something that was used is not known. Writing to a prompt cache, for which
 * some providers take more, counts as reading.
 */
export function costUsd(model: Model, usage: TokenUsage): number | undefined {
  const costs = [
    cost(usage.inputTokens - usage.cachedInputTokens, model.inputPrice),
    cost(usage.cachedInputTokens, model.cachedInputPrice),
    cost(usage.outputTokens, model.outputPrice),
  ];
  return costs.reduce((sum, each) => (sum === undefined || each === undefined ? undefined : sum + each), 0);
}

function cost(tokens: number, price: number | undefined): number | undefined {
  if (tokens === 0) {
    return 0;
  }
  return price === undefined ? undefined : (tokens * price) / PER_TOKENS;
}
