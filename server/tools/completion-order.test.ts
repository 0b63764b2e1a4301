import { expect, test } from "vitest";
import { completionOrder } from "./completion-order.ts";

test("values come in the order in which their promises are fulfilled", async () => {
  const gates = [
    Promise.withResolvers<string>(),
    Promise.withResolvers<string>(),
    Promise.withResolvers<string>(),
  ];
  const values = completionOrder(gates.map(({ promise }) => promise));
  gates[2]?.resolve("third");
  expect(await values.next()).toEqual({ done: false, value: "third" });
  const pending = values.next();
  gates[0]?.resolve("first");
  expect(await pending).toEqual({ done: false, value: "first" });
  gates[1]?.resolve("second");
  expect(await values.next()).toEqual({ done: false, value: "second" });
  expect(await values.next()).toEqual({ done: true, value: undefined });
});

test("no promises end at once", async () => {
  expect(await Array.fromAsync(completionOrder([]))).toEqual([]);
});
