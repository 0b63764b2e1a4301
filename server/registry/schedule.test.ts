import { expect, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import { createSchedule } from "./schedule.ts";

/** Finishes work with an error. */
const failure = -1;

/** A schedule whose work is done when the test says so. */
function createManual(concurrency = 10) {
  const clock = createFakeClock();
  const started: string[] = [];
  const finish = new Map<string, (delayMs: number | undefined) => void>();
  const errors: unknown[] = [];
  const schedule = createSchedule({
    clock,
    concurrency,
    work(id) {
      started.push(id);
      return new Promise((resolve, reject) => {
        finish.set(id, (delayMs) => (delayMs === failure ? reject(new Error("oops")) : resolve(delayMs)));
      });
    },
    onError: (error) => errors.push(error),
  });
  return {
    clock,
    schedule,
    started,
    errors,
    finish: (id: string, delayMs: number | undefined) => finish.get(id)?.(delayMs),
  };
}

test("work is done when it is due, and again when it says so", async () => {
  const { clock, schedule, started, finish } = createManual();
  schedule.plan("a", 100);
  clock.advance(99);
  expect(started).toEqual([]);
  clock.advance(1);
  await expect.poll(() => started).toEqual(["a"]);
  finish("a", 50);
  await expect.poll(() => clock.pending).toBe(1);
  clock.advance(50);
  await expect.poll(() => started).toEqual(["a", "a"]);
  finish("a", undefined);
  await expect.poll(() => schedule.has("a")).toBe(false);
});

test("the sooner of two plans counts, also while the work goes on", async () => {
  const { clock, schedule, started, finish } = createManual();
  schedule.plan("a", 10);
  schedule.plan("a", 1_000);
  clock.advance(10);
  await expect.poll(() => started).toHaveLength(1);
  schedule.plan("a", 5);
  clock.advance(20);
  expect(started).toHaveLength(1);
  finish("a", 1_000);
  await expect.poll(() => clock.pending).toBe(1);
  clock.advance(0);
  await expect.poll(() => started).toHaveLength(2);
});

test("only so many are done at once, and what is forgotten is not done", async () => {
  const { clock, schedule, started, finish } = createManual(2);
  for (const id of ["a", "b", "c", "d"]) {
    schedule.plan(id, 0);
  }
  clock.advance(0);
  await expect.poll(() => started).toEqual(["a", "b"]);
  schedule.forget("c");
  finish("a", undefined);
  await expect.poll(() => started).toEqual(["a", "b", "d"]);
});

test("closing waits for what goes on and plans nothing more", async () => {
  const { clock, schedule, started, finish } = createManual();
  schedule.plan("a", 0);
  schedule.plan("b", 10);
  clock.advance(0);
  await expect.poll(() => started).toEqual(["a"]);
  const closed = schedule.close();
  finish("a", 10);
  await closed;
  schedule.plan("c", 0);
  expect(clock.pending).toBe(0);
});

test("work that fails is reported, and others go on", async () => {
  const { clock, schedule, started, errors, finish } = createManual(1);
  schedule.plan("a", 0);
  schedule.plan("b", 0);
  clock.advance(0);
  await expect.poll(() => started).toEqual(["a"]);
  finish("a", failure);
  await expect.poll(() => started).toEqual(["a", "b"]);
  expect(errors).toHaveLength(1);
  expect(schedule.has("a")).toBe(false);
});
