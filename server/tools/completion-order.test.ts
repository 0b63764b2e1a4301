import { expect, test } from "vitest";
import { inCompletionOrder } from "./completion-order.ts";

/** Work whose parts end when told to. */
function controlled() {
  const started: number[] = [];
  const parts = new Map<number, PromiseWithResolvers<string>>();
  return {
    started,
    end: (index: number) => parts.get(index)?.resolve(`result ${index}`),
    run(_item: string, index: number) {
      const part = Promise.withResolvers<string>();
      parts.set(index, part);
      started.push(index);
      return part.promise;
    },
  };
}

const items = ["a", "b", "c", "d", "e"];

test("results come in the order in which they are there", async () => {
  const work = controlled();
  const results = inCompletionOrder(items.slice(0, 3), 3, work.run);
  const first = results.next();
  work.end(2);
  expect(await first).toEqual({ done: false, value: "result 2" });
  work.end(1);
  work.end(0);
  expect(await Array.fromAsync(results)).toEqual(["result 1", "result 0"]);
});

test("no more run at once than are allowed to, results that nobody has taken included", async () => {
  const work = controlled();
  const results = inCompletionOrder(items, 2, work.run);
  const first = results.next();
  expect(work.started).toEqual([0, 1]);
  work.end(0);
  work.end(1);
  expect(await first).toMatchObject({ value: "result 0" });
  expect(work.started).toEqual([0, 1]);
  expect(await results.next()).toMatchObject({ value: "result 1" });
  expect(work.started).toEqual([0, 1, 2]);
});

test("nothing is started once the reader has left", async () => {
  const work = controlled();
  const results = inCompletionOrder(items, 1, work.run);
  const first = results.next();
  work.end(0);
  await first;
  await results.return();
  expect(work.started).toEqual([0]);
});

test("there may be nothing to do", async () => {
  expect(await Array.fromAsync(inCompletionOrder([], 5, controlled().run))).toEqual([]);
});
