import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { createRateLimiter, type RateLimiterEvent } from "./rate-limiter.ts";

test("a key has its burst at once, then a token every interval", () => {
  const clock = createFakeClock();
  const limiter = createRateLimiter({ limit: 60, periodMs: 60_000, burst: 3, clock });
  expect(limiter.take("a")).toMatchObject({ allowed: true, remaining: 2, retryAfterMs: 0, resetMs: 1_000 });
  expect(limiter.take("a")).toMatchObject({ allowed: true, remaining: 1, resetMs: 2_000 });
  expect(limiter.take("a")).toMatchObject({ allowed: true, remaining: 0, resetMs: 3_000 });
  expect(limiter.take("a")).toMatchObject({
    allowed: false,
    remaining: 0,
    retryAfterMs: 1_000,
    resetMs: 3_000,
  });
  expect(limiter.take("b").allowed).toBe(true);
  clock.advance(1_000);
  expect(limiter.take("a").allowed).toBe(true);
  expect(limiter.take("a").allowed).toBe(false);
});

test("checking spends nothing and says what taking would", () => {
  const clock = createFakeClock();
  const limiter = createRateLimiter({ limit: 1, periodMs: 1_000, clock });
  for (let look = 0; look < 5; look++) {
    expect(limiter.check("a")).toMatchObject({ allowed: true, remaining: 1 });
  }
  expect(limiter.stats().keys).toBe(0);
  limiter.take("a");
  expect(limiter.check("a")).toMatchObject({ allowed: false, retryAfterMs: 1_000 });
});

test("a refund makes it as if the call had not come", () => {
  const limiter = createRateLimiter({ limit: 1, periodMs: 1_000, clock: createFakeClock() });
  limiter.take("a");
  limiter.refund("a");
  expect(limiter.take("a").allowed).toBe(true);
  limiter.refund("never seen");
  expect(limiter.stats().keys).toBe(1);
});

test("keys may have limits of their own, which can be changed and taken away", () => {
  const limiter = createRateLimiter({
    limit: 60,
    periodMs: 60_000,
    burst: 1,
    overrides: [["big", { limit: 120, periodMs: 60_000, burst: 2 }]],
    clock: createFakeClock(),
  });
  expect(limiter.check("big").remaining).toBe(2);
  expect(limiter.limitOf("big")).toMatchObject({ limit: 120, burst: 2 });
  expect(limiter.check("small").remaining).toBe(1);
  limiter.setLimit("small", { limit: 60, periodMs: 60_000, burst: 5 });
  expect(limiter.check("small").remaining).toBe(5);
  limiter.setLimit("small", undefined);
  expect(limiter.check("small").remaining).toBe(1);
});

test("keys that are as good as new are forgotten, and the timer with the last of them", () => {
  const clock = createFakeClock();
  const limiter = createRateLimiter({ limit: 60, periodMs: 60_000, burst: 20, clock });
  for (let key = 0; key < 30_000; key++) {
    limiter.take(String(key));
  }
  for (let call = 0; call < 20; call++) {
    limiter.take("busy");
  }
  expect(limiter.stats().keys).toBe(30_001);
  clock.advance(5_000);
  expect(limiter.stats().keys).toBe(1);
  expect(limiter.check("busy").remaining).toBe(5);
  clock.advance(30_000);
  expect(limiter.stats().keys).toBe(0);
  expect(clock.pending).toBe(0);
});

test("a closed limiter has no timer and still forgets", () => {
  const clock = createFakeClock();
  const limiter = createRateLimiter({ limit: 60, periodMs: 60_000, clock });
  limiter.take("a");
  limiter.close();
  limiter.take("b");
  expect(clock.pending).toBe(0);
  clock.advance(1_000);
  limiter.take("c");
  expect(limiter.stats().keys).toBe(1);
});

test("when it is full, a new key takes the place and the debt of the one closest to new", () => {
  const limiter = createRateLimiter({
    limit: 60,
    periodMs: 60_000,
    burst: 5,
    maxKeys: 3,
    clock: createFakeClock(),
  });
  const takeTimes = (key: string, times: number) => {
    for (let call = 0; call < times; call++) {
      limiter.take(key);
    }
  };
  takeTimes("exhausted", 5);
  takeTimes("busy", 3);
  takeTimes("idle", 1);
  expect(limiter.check("new").remaining).toBe(4);
  expect(limiter.take("new")).toMatchObject({ allowed: true, remaining: 3 });
  expect(limiter.stats()).toMatchObject({ keys: 3, displaced: 1 });
  expect(limiter.check("exhausted").allowed).toBe(false);
  expect(limiter.check("busy").remaining).toBe(2);
});

test("refusals and keys that lose their place are told, whoever has refused, and a listener that throws changes nothing", () => {
  const events: RateLimiterEvent[] = [];
  const limiter = createRateLimiter({
    limit: 60,
    periodMs: 60_000,
    burst: 1,
    maxKeys: 1,
    clock: createFakeClock(),
    onEvent(event) {
      events.push(event);
      throw new Error("a listener's own trouble");
    },
  });
  limiter.take("a");
  expect(limiter.take("a").allowed).toBe(false);
  limiter.refuse("a", 5_000);
  expect(limiter.check("a").allowed).toBe(false);
  limiter.setLimit("b", { limit: 60, periodMs: 60_000, burst: 3 });
  expect(limiter.take("b").allowed).toBe(true);
  expect(events).toEqual([
    { kind: "refused", key: "a", retryAfterMs: 1_000 },
    { kind: "refused", key: "a", retryAfterMs: 5_000 },
    { kind: "displaced", key: "a", by: "b" },
  ]);
});

test("nobody gets rid of a debt by flooding the limiter with other keys", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 20 }),
      fc.array(
        fc.record({ key: fc.integer({ min: 0, max: 60 }), gapMs: fc.constantFrom(0, 0, 0, 100, 700) }),
        { minLength: 50, maxLength: 400 },
      ),
      (maxKeys, calls) => {
        const clock = createFakeClock();
        const limiter = createRateLimiter({ limit: 4, periodMs: 2_000, burst: 3, maxKeys, clock });
        const allowedAt: number[] = [];
        for (const { key, gapMs } of calls) {
          clock.advance(gapMs);
          const { allowed } = limiter.check(String(key));
          expect(limiter.take(String(key)).allowed).toBe(allowed);
          if (allowed) {
            allowedAt.push(clock.monotonic());
          }
          expect(limiter.stats().keys).toBeLessThanOrEqual(maxKeys);
        }
        for (const [index, from] of allowedAt.entries()) {
          const within = allowedAt.slice(index).filter((at) => at - from <= 2_000);
          expect(within.length).toBeLessThanOrEqual(maxKeys * (4 + 3));
        }
      },
    ),
  );
});

test("each key is limited as if it were alone, whichever others come and go", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ key: fc.integer({ min: 0, max: 150 }), gapMs: fc.constantFrom(0, 0, 1, 250) }), {
        maxLength: 500,
      }),
      (calls) => {
        const clock = createFakeClock();
        const limit = { limit: 4, periodMs: 2_000, burst: 3, clock };
        const shared = createRateLimiter(limit);
        const alone = new Map<string, ReturnType<typeof createRateLimiter>>();
        for (const { key, gapMs } of calls) {
          clock.advance(gapMs);
          const name = String(key);
          const own = alone.get(name) ?? createRateLimiter(limit);
          alone.set(name, own);
          expect(shared.take(name)).toEqual(own.take(name));
        }
      },
    ),
    { numRuns: 30 },
  );
});

test("the keys that are used most come first", () => {
  const limiter = createRateLimiter({ limit: 2, periodMs: 1_000, clock: createFakeClock() });
  for (const [key, calls] of Object.entries({ few: 1, most: 5, some: 3, none: 0 })) {
    for (let call = 0; call < calls; call++) {
      limiter.take(key);
    }
  }
  expect(limiter.top(2)).toMatchObject([
    { key: "most", allowed: 2, refused: 3, remaining: 0, resetMs: 1_000 },
    { key: "some", allowed: 2, refused: 1 },
  ]);
  expect(limiter.top(0)).toEqual([]);
  expect(limiter.top(10)).toHaveLength(3);
  expect(limiter.stats()).toEqual({ keys: 3, allowed: 5, refused: 4, displaced: 0 });
});
