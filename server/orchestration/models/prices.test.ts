import { expect, test } from "vitest";
import type { Model } from "./model.ts";
import { costUsd } from "./prices.ts";

const model: Model = {
  name: "quick",
  provider: "claude",
  protocol: "anthropic",
  model: "quick",
  inputPrice: 3,
  cachedInputPrice: 0.3,
  outputPrice: 15,
  maxOutputTokens: 8192,
};
const usage = { inputTokens: 1_000_000, cachedInputTokens: 400_000, outputTokens: 100_000 };

test("tokens from the cache have their own price", () => {
  expect(costUsd(model, usage)).toBeCloseTo(0.6 * 3 + 0.4 * 0.3 + 0.1 * 15, 10);
});

test("a cost of which a part is not known is not known", () => {
  expect(costUsd({ ...model, outputPrice: undefined }, usage)).toBeUndefined();
  expect(costUsd({ ...model, inputPrice: undefined }, usage)).toBeUndefined();
});

test("what was not used needs no price", () => {
  const bare = { ...model, cachedInputPrice: undefined, outputPrice: undefined };

  expect(costUsd(bare, { inputTokens: 1_000_000, cachedInputTokens: 0, outputTokens: 0 })).toBe(3);
  expect(
    costUsd({ ...bare, inputPrice: undefined }, { inputTokens: 0, cachedInputTokens: 0, outputTokens: 0 }),
  ).toBe(0);
});

test("a model may cost nothing", () => {
  const free = { ...model, inputPrice: 0, cachedInputPrice: 0, outputPrice: 0 };

  expect(costUsd(free, usage)).toBe(0);
});
