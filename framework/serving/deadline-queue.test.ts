import { expect, test } from "vitest";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { createDeadlineQueue } from "./deadline-queue.ts";

function setUp() {
  const clock = createFakeClock();
  const queue = createDeadlineQueue(clock, 1_000);
  const late: string[] = [];
  return { clock, late, wait: (name: string) => queue.add(() => late.push(name)), queue };
}

test("each is called back when its own time is over", () => {
  const { clock, late, wait } = setUp();
  wait("a");
  clock.advance(400);
  wait("b");
  wait("c");
  clock.advance(599);
  expect(late).toEqual([]);
  clock.advance(1);
  expect(late).toEqual(["a"]);
  clock.advance(400);
  expect(late).toEqual(["a", "b", "c"]);
});

test("who has come in time is not called back, and holds nobody up", () => {
  const { clock, late, wait, queue } = setUp();
  const first = wait("a");
  clock.advance(500);
  wait("b");
  queue.remove(first);
  clock.advance(500);
  expect(late).toEqual([]);
  clock.advance(500);
  expect(late).toEqual(["b"]);
});

test("it starts again after it was empty", () => {
  const { clock, late, wait, queue } = setUp();
  queue.remove(wait("a"));
  clock.advance(5_000);
  wait("b");
  clock.advance(999);
  expect(late).toEqual([]);
  clock.advance(1);
  expect(late).toEqual(["b"]);
});

test("who is called back may let others wait", () => {
  const clock = createFakeClock();
  const queue = createDeadlineQueue(clock, 1_000);
  const late: string[] = [];
  queue.add(() => {
    late.push("a");
    queue.add(() => late.push("b"));
  });
  clock.advance(1_000);
  expect(late).toEqual(["a"]);
  clock.advance(1_000);
  expect(late).toEqual(["a", "b"]);
});
