import { expect, test } from "vitest";
import { abortable, untilAborted } from "./abortable.ts";

test("a promise that settles first wins over the signal", async () => {
  const { signal } = new AbortController();
  await expect(untilAborted(Promise.resolve(1), signal)).resolves.toBe(1);
  await expect(untilAborted(Promise.reject(new Error("no")), signal)).rejects.toThrow("no");
});

test("a promise that never settles ends with the signal's reason", async () => {
  const controller = new AbortController();
  const waiting = untilAborted(new Promise(() => {}), controller.signal);
  controller.abort(new Error("too late"));
  await expect(waiting).rejects.toThrow("too late");
  await expect(untilAborted(new Promise(() => {}), controller.signal)).rejects.toThrow("too late");
});

/** A generator that tells whether it was cleaned up. */
function source() {
  const state = { cleanedUp: false };
  async function* items() {
    try {
      yield 1;
      yield 2;
    } finally {
      state.cleanedUp = true;
    }
  }
  return { state, items: items() };
}

test("items pass until the source ends", async () => {
  const { items } = source();
  expect(await Array.fromAsync(abortable(items, new AbortController().signal))).toEqual([1, 2]);
});

test("leaving the iteration cleans the source up", async () => {
  const { items, state } = source();
  for await (const _ of abortable(items, new AbortController().signal)) {
    break;
  }
  expect(state.cleanedUp).toBe(true);
});

test("an abort cleans the source up although nobody reads, and fails whoever reads afterwards", async () => {
  const controller = new AbortController();
  const { items, state } = source();
  const iterator = abortable(items, controller.signal)[Symbol.asyncIterator]();
  await iterator.next();
  controller.abort(new Error("gone"));
  await expect.poll(() => state.cleanedUp).toBe(true);
  await expect(iterator.next()).rejects.toThrow("gone");
});

test("an abort fails the pending read even when the source does not react", async () => {
  const controller = new AbortController();
  const stuck = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) };
  const pending = abortable(stuck, controller.signal)[Symbol.asyncIterator]().next();
  controller.abort(new Error("gone"));
  await expect(pending).rejects.toThrow("gone");
});

test("a failure of the source is passed on", async () => {
  const failing = {
    [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new Error("broken")) }),
  };
  await expect(Array.fromAsync(abortable(failing, new AbortController().signal))).rejects.toThrow("broken");
});
