import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { noiseBound, type TimedTest } from "./noise-bound.ts";

const quiet = { base: [10, 11, 10], head: [11, 10, 11] };

describe("the gap between the sides of a test", () => {
  const slower = { base: [10, 12, 11], head: [40, 45, 42] };

  it("is from the slowest run of the faster side to the fastest of the slower one", () => {
    expect(noiseBound([slower, quiet], 3, 3)(slower)).toEqual({ ms: 28, noiseMs: 1 });
    expect(noiseBound([slower, quiet], 3, 3)({ base: [1, 30, 1], head: [20, 40, 50] }).ms).toBe(0);
  });

  it("is measured by the widest gap of any other division, among tests up to twice as long", () => {
    // Its longest three runs are two of base and one of head.
    const torn = { base: [30, 10, 31], head: [10, 29, 10] };
    const tornAndLong = { base: [300, 100, 310], head: [100, 290, 100] };
    expect(noiseBound([slower, torn, tornAndLong], 3, 3)(slower).noiseMs).toBe(19);
  });

  it("is not measured by what may be real: the same division, and its reverse", () => {
    const same = { base: [10, 10, 10], head: [500, 500, 500] };
    const reverse = { base: [500, 500, 500], head: [10, 10, 10] };
    expect(noiseBound([slower, same, reverse], 3, 3)(slower).noiseMs).toBe(0);
  });

  it("is measured by the reverse where each side has one run", () => {
    const one = { base: [10], head: [60] };
    const same = { base: [10], head: [900] };
    const reverse = { base: [37], head: [12] };
    expect(noiseBound([one, same, reverse], 1, 1)(one)).toEqual({ ms: 50, noiseMs: 25 });
  });

  it("is measured by the other runs of base where head has one", () => {
    const one = { base: [10, 11, 10], head: [60] };
    const paused = { base: [10, 24, 11], head: [11] };
    expect(noiseBound([one, paused], 3, 1)(one)).toEqual({ ms: 49, noiseMs: 13 });
  });
});

it("says the same when the sides are exchanged", () => {
  const side = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 4 });
  const sizes = fc.record({ n: fc.integer({ min: 1, max: 4 }), m: fc.integer({ min: 1, max: 4 }) });
  const suite = sizes.chain(({ n, m }) => {
    const values = (size: number) =>
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: size, maxLength: size });
    return fc.record({
      n: fc.constant(n),
      m: fc.constant(m),
      tests: fc.array(fc.record({ base: values(n), head: values(m) }), { minLength: 1, maxLength: 20 }),
    });
  });
  const turned = ({ base, head }: TimedTest) => ({ base: head, head: base });
  fc.assert(
    fc.property(suite, side, side, ({ n, m, tests }, base, head) => {
      const there = noiseBound(tests, n, m);
      const back = noiseBound(tests.map(turned), m, n);
      for (const test of [...tests, { base, head }].filter((each) => noiseBound([each], 1, 1)(each).ms > 0)) {
        expect(back(turned(test))).toEqual(there(test));
      }
    }),
  );
});
