import { expect, test } from "vitest";
import { createInstanceChooser } from "./choose-instance.ts";

const a = { id: "a" };
const b = { id: "b" };

/** Draws each of the numbers in turn, over and over. */
function draws(...numbers: number[]): () => number {
  let next = 0;
  return () => numbers[next++ % numbers.length] ?? 0;
}

test("the less busy of the two candidates is chosen", () => {
  const chooser = createInstanceChooser(draws(0, 0.9));
  const first = chooser.choose([a, b]);
  const second = chooser.choose([a, b]);
  expect([first.instance, second.instance]).toEqual([a, b]);
  first.release();
  expect(chooser.choose([a, b]).instance).toBe(a);
});

test("releasing twice counts once", () => {
  const chooser = createInstanceChooser(draws(0, 0.9));
  const first = chooser.choose([a, b]);
  chooser.choose([a, b]);
  first.release();
  first.release();
  chooser.choose([a, b]);
  expect(chooser.choose([a, b]).instance).toBe(a);
  expect(chooser.choose([a, b]).instance).toBe(b);
});

test("a single instance is chosen however busy it is", () => {
  const chooser = createInstanceChooser();
  for (let call = 0; call < 10; call++) {
    expect(chooser.choose([a]).instance).toBe(a);
  }
});
