import { setImmediate as comeRound } from "node:timers/promises";
import { expect, it } from "vitest";
import { createTurns } from "./turns.ts";

async function startAll(weights: readonly number[]) {
  const turns = createTurns(10);
  const done: number[] = [];
  for (const [index, weight] of weights.entries()) {
    void turns.take(weight).then(() => done.push(index));
  }
  await Promise.resolve();
  return { turns, done };
}

it("light work goes through at once", async () => {
  const { done } = await startAll([1, 1, 1, 1]);
  expect(done).toEqual([0, 1, 2, 3]);
});

it("heavy work takes turns, in order, and lets the event loop come round in between", async () => {
  const { done } = await startAll([100, 100, 4, 4, 4, 100]);
  const seen = [done.length];
  while (done.length < 6) {
    await comeRound();
    seen.push(done.length);
  }
  expect(done).toEqual([0, 1, 2, 3, 4, 5]);
  expect(new Set(seen)).toEqual(new Set([1, 2, 5, 6]));
});

it("after a pause work goes through at once again", async () => {
  const { turns, done } = await startAll([100, 100]);
  await expect.poll(() => done).toEqual([0, 1]);
  await comeRound();
  await comeRound();
  let isDone = false;
  void turns.take(1).then(() => {
    isDone = true;
  });
  await Promise.resolve();
  expect(isDone).toBe(true);
});
