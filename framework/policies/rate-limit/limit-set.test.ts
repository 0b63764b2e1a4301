import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { createLimitSet } from "./limit-set.ts";
import { createRateLimiter } from "./rate-limiter.ts";

interface Call {
  readonly service: string;
  readonly caller: string | undefined;
}

function threeLevels(clock = createFakeClock()) {
  const global = createRateLimiter({ limit: 10, periodMs: 10_000, burst: 5, clock });
  const service = createRateLimiter({ limit: 6, periodMs: 10_000, burst: 3, clock });
  const caller = createRateLimiter({ limit: 4, periodMs: 10_000, burst: 2, clock });
  const set = createLimitSet<Call>(
    [
      { name: "global", limiter: global, keyOf: () => "all" },
      { name: "service", limiter: service, keyOf: (call) => call.service },
      { name: "caller", limiter: caller, keyOf: (call) => call.caller },
    ],
    { clock },
  );
  return { clock, set, limiters: [global, service, caller] };
}

/** A bucket of tokens that is filled step by step: what GCRA is said to equal, in whole numbers. */
function createModel(limit: number, periodMs: number, burst: number) {
  // A token is periodMs parts; limit parts come each millisecond.
  const full = burst * periodMs;
  const buckets = new Map<string, { parts: number; at: number }>();
  const partsOf = (key: string, now: number) => {
    const bucket = buckets.get(key) ?? { parts: full, at: now };
    return Math.min(full, bucket.parts + (now - bucket.at) * limit);
  };
  return {
    remaining: (key: string, now: number) => Math.floor(partsOf(key, now) / periodMs),
    spend: (key: string, now: number) => buckets.set(key, { parts: partsOf(key, now) - periodMs, at: now }),
  };
}

test("a call is let through exactly when every level has a token, and a refusal spends none", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          gapMs: fc.constantFrom(0, 0, 0, 1, 600, 1_667, 5_000),
          service: fc.constantFrom("s", "t"),
          caller: fc.constantFrom("a", "b", "c", undefined),
        }),
        { maxLength: 200 },
      ),
      (calls) => {
        const { clock, set, limiters } = threeLevels();
        const models = [
          createModel(10, 10_000, 5),
          createModel(6, 10_000, 3),
          createModel(4, 10_000, 2),
        ] as const;
        for (const { gapMs, ...call } of calls) {
          clock.advance(gapMs);
          const now = clock.monotonic();
          const keys = ["all", call.service, call.caller];
          const expected = models.every((model, level) => {
            const key = keys[level];
            return key === undefined || model.remaining(key, now) > 0;
          });
          expect(set.take(call)?.allowed).toBe(expected);
          for (const [level, model] of models.entries()) {
            const key = keys[level];
            if (key !== undefined) {
              if (expected) {
                model.spend(key, now);
              }
              expect(limiters[level]?.check(key).remaining).toBe(model.remaining(key, now));
            }
          }
        }
      },
    ),
  );
});

test("the decision is that of the level with the least left, or of the one to wait longest for", () => {
  const { set } = threeLevels();
  expect(set.take({ service: "s", caller: "a" })).toMatchObject({ level: "caller", key: "a", remaining: 1 });
  set.take({ service: "s", caller: "a" });
  expect(set.take({ service: "t", caller: "a" })).toMatchObject({
    allowed: false,
    level: "caller",
    key: "a",
    retryAfterMs: 2_500,
    limit: { limit: 4, periodMs: 10_000, burst: 2 },
  });
  expect(set.take({ service: "s", caller: "b" })).toMatchObject({ level: "service", remaining: 0 });
  expect(set.take({ service: "s", caller: "a" })).toMatchObject({ level: "caller", retryAfterMs: 2_500 });
  expect(set.take({ service: "s", caller: "b" })).toMatchObject({ level: "service", key: "s" });
  expect(set.snapshot(1)).toMatchObject([
    { name: "global", keys: 1, allowed: 3, refused: 0 },
    { name: "service", keys: 1, allowed: 3, refused: 1 },
    { name: "caller", keys: 2, allowed: 3, refused: 2, top: [{ key: "a", allowed: 2, refused: 2 }] },
  ]);
});

test("where no level applies there is nothing to say", () => {
  const limiter = createRateLimiter({ limit: 1, periodMs: 1_000, clock: createFakeClock() });
  const set = createLimitSet([{ name: "caller", limiter, keyOf: () => undefined }]);
  expect(set.take({})).toBeUndefined();
  expect(createLimitSet([]).take({})).toBeUndefined();
});

test("two levels cannot share a limiter", () => {
  const limiter = createRateLimiter({ limit: 1, periodMs: 1_000, clock: createFakeClock() });
  const level = { limiter, keyOf: () => "all" };
  expect(() =>
    createLimitSet([
      { name: "one", ...level },
      { name: "two", ...level },
    ]),
  ).toThrow("each level of limits needs a limiter of its own");
});

test("closing a set leaves no timer", () => {
  const { clock, set } = threeLevels();
  set.take({ service: "s", caller: "a" });
  expect(clock.pending).toBe(3);
  set.close();
  expect(clock.pending).toBe(0);
});
