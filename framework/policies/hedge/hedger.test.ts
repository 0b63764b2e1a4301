import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { createRetryBudget } from "../retry/retry-budget.ts";
import type { Failure } from "../retry/retry-decision.ts";
import { createHedger, type HedgeEvent, HedgeLostError, type HedgerOptions } from "./hedger.ts";
import { createMovingPercentile } from "./moving-percentile.ts";

class Failed extends Error {
  readonly failure: Failure;

  constructor(failure: Failure) {
    super(failure.kind);
    this.failure = failure;
  }
}

interface Attempt {
  readonly number: number;
  readonly signal: AbortSignal;
  succeed(value: string): void;
  fail(failure: Failure): void;
}

function setUp(options: Partial<HedgerOptions> = {}) {
  const clock = createFakeClock();
  const events: HedgeEvent[] = [];
  const hedger = createHedger({
    classify: (error) => (error instanceof Failed ? error.failure : { kind: "permanent" }),
    delayMs: 100,
    clock,
    onEvent: (event) => events.push(event),
    ...options,
  });
  const attempts: Attempt[] = [];
  const work = (number: number, signal: AbortSignal) =>
    new Promise<string>((succeed, reject) => {
      attempts.push({ number, signal, succeed, fail: (failure) => reject(new Failed(failure)) });
    });
  const attempt = (number: number): Attempt => {
    const found = attempts[number - 1];
    if (found === undefined) {
      throw new Error(`there was no attempt ${number}`);
    }
    return found;
  };
  return { clock, events, hedger, attempts, attempt, work };
}

const settled = () => new Promise<void>((resolve) => setImmediate(resolve));
const call = { repeatable: true };

test("a call that is answered in time has one attempt", async () => {
  const { hedger, clock, work, attempt, attempts } = setUp();
  const result = hedger.run(work, call);
  clock.advance(99);
  attempt(1).succeed("first");
  await expect(result).resolves.toBe("first");
  clock.advance(1_000);
  expect(attempts).toHaveLength(1);
  expect(clock.pending).toBe(0);
});

test("a slow call gets a second attempt, whose answer counts when it is there first", async () => {
  const { hedger, clock, work, attempt, events } = setUp();
  const result = hedger.run(work, call);
  clock.advance(100);
  attempt(2).succeed("second");
  await expect(result).resolves.toBe("second");
  expect(attempt(1).signal.reason).toBeInstanceOf(HedgeLostError);
  expect(attempt(2).signal.aborted).toBe(false);
  expect(events).toEqual([
    { kind: "hedged", attempt: 2, afterMs: 100 },
    { kind: "won", attempt: 2, cancelled: 1 },
  ]);
  expect(hedger.stats()).toMatchObject({ calls: 1, hedges: 1, wins: 1 });
});

test("what a loser still brings is dropped, a failure too", async () => {
  const { hedger, clock, work, attempt } = setUp();
  const result = hedger.run(work, call);
  clock.advance(100);
  attempt(1).succeed("first");
  attempt(2).fail({ kind: "permanent" });
  await expect(result).resolves.toBe("first");
  expect(attempt(2).signal.reason).toBeInstanceOf(HedgeLostError);
});

test("there are at most two attempts beside the first", async () => {
  const { hedger, clock, work, attempts, attempt } = setUp({ maxExtra: 5 });
  const result = hedger.run(work, call);
  clock.advance(10_000);
  expect(attempts).toHaveLength(3);
  attempt(3).succeed("third");
  await expect(result).resolves.toBe("third");
});

test("a call that must not happen twice is not hedged", () => {
  const { hedger, clock, work, attempts } = setUp();
  void hedger.run(work, { repeatable: false });
  clock.advance(10_000);
  expect(attempts).toHaveLength(1);
  expect(clock.pending).toBe(0);
});

test("hedges spend the budget of retries", async () => {
  const clock = createFakeClock();
  const budget = createRetryBudget({ minPerSecond: 0, ratio: 0.5, clock });
  const { hedger, work, attempts, events } = setUp({ budget, clock });
  budget.count();
  budget.count();
  void hedger.run(work, call);
  void hedger.run(work, call);
  clock.advance(100);
  expect(attempts).toHaveLength(3);
  expect(events).toEqual([{ kind: "hedged", attempt: 2, afterMs: 100 }, { kind: "denied" }]);
  expect(budget.stats()).toMatchObject({ calls: 2, retries: 1, denied: 1 });
  expect(hedger.stats().denied).toBe(1);
});

test("a transient failure starts the next attempt at once, the last one's is the call's", async () => {
  const { hedger, work, attempt, attempts } = setUp();
  const result = hedger.run(work, call);
  result.catch(() => {});
  attempt(1).fail({ kind: "transient" });
  await settled();
  expect(attempts).toHaveLength(2);
  attempt(2).fail({ kind: "transient" });
  await expect(result).rejects.toMatchObject({ failure: { kind: "transient" } });
});

test("a failure does not end a call that another attempt may still save", async () => {
  const { hedger, clock, work, attempt } = setUp();
  const result = hedger.run(work, call);
  clock.advance(100);
  attempt(1).fail({ kind: "transient" });
  await settled();
  attempt(2).succeed("second");
  await expect(result).resolves.toBe("second");
});

test.each<Failure>([{ kind: "forbidden" }, { kind: "transient", pushBackMs: 50 }])(
  "no attempt starts when the server does not want it: $kind",
  async (failure) => {
    const { hedger, clock, work, attempt, attempts } = setUp();
    const result = hedger.run(work, call);
    result.catch(() => {});
    attempt(1).fail(failure);
    await expect(result).rejects.toMatchObject({ failure });
    clock.advance(10_000);
    expect(attempts).toHaveLength(1);
  },
);

test("a permanent failure ends the call and cancels the other attempts", async () => {
  const { hedger, clock, work, attempt } = setUp();
  const result = hedger.run(work, call);
  result.catch(() => {});
  clock.advance(100);
  attempt(2).fail({ kind: "permanent" });
  await expect(result).rejects.toMatchObject({ failure: { kind: "permanent" } });
  expect(attempt(1).signal.aborted).toBe(true);
});

test("a caller that leaves cancels every attempt with its reason", async () => {
  const { hedger, clock, work, attempt } = setUp();
  const caller = new AbortController();
  const result = hedger.run(work, { ...call, signal: caller.signal });
  result.catch(() => {});
  clock.advance(100);
  const gone = new Error("gone");
  caller.abort(gone);
  await expect(result).rejects.toBe(gone);
  expect([attempt(1).signal.reason, attempt(2).signal.reason]).toEqual([gone, gone]);
  await expect(hedger.run(work, { ...call, signal: caller.signal })).rejects.toBe(gone);
});

test("nothing starts after the deadline", () => {
  const { hedger, clock, work, attempts } = setUp();
  void hedger.run(work, { ...call, deadline: clock.now() + 100 });
  clock.advance(1_000);
  expect(attempts).toHaveLength(1);
});

test("without a given delay, calls are hedged that take longer than 95 of 100 do", async () => {
  const clock = createFakeClock();
  const hedger = createHedger({ classify: () => ({ kind: "permanent" }), clock });
  for (let ms = 1; ms <= 100; ms++) {
    expect(hedger.stats().delayMs === undefined).toBe(ms <= 20);
    const result = hedger.run(() => new Promise<void>((resolve) => void clock.after(ms, resolve)), {
      repeatable: false,
    });
    clock.advance(ms);
    await result;
  }
  expect(hedger.stats().delayMs).toBe(96);
});

test("a percentile is that of the latest values", () => {
  const median = createMovingPercentile({ percentile: 0.5, size: 10, minSamples: 1 });
  for (let value = 1; value <= 100; value++) {
    median.add(value);
  }
  expect(median.value).toBe(96);
});

test("whatever happens, one attempt wins, all others are cancelled, and the budget holds", async () => {
  const plan = fc.record({
    ms: fc.integer({ min: 0, max: 400 }),
    failure: fc.option(
      fc.constantFrom<Failure>({ kind: "transient" }, { kind: "permanent" }, { kind: "forbidden" }),
    ),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(plan, { minLength: 3, maxLength: 3 }), { minLength: 1, maxLength: 8 }),
      fc.option(fc.integer({ min: 0, max: 500 })),
      async (calls, leavesAt) => {
        const clock = createFakeClock();
        const budget = createRetryBudget({ ratio: 0.5, minPerSecond: 0, clock });
        const { hedger } = setUp({ clock, budget, maxExtra: 2 });
        const caller = new AbortController();
        if (leavesAt !== null) {
          clock.after(leavesAt, () => caller.abort(new Error("gone")));
        }
        const outcomes = calls.map((plans) => {
          budget.count();
          const signals: AbortSignal[] = [];
          const result = hedger.run(
            (number, signal) => {
              signals.push(signal);
              return new Promise<number>((resolve, reject) => {
                const { ms, failure } = plans[number - 1] ?? { ms: 0, failure: null };
                clock.after(ms, () => (failure ? reject(new Failed(failure)) : resolve(number)));
              });
            },
            { repeatable: true, signal: caller.signal },
          );
          return result.then(
            (winner) => ({ winner, signals }),
            () => ({ winner: undefined, signals }),
          );
        });
        while (clock.pending > 0) {
          clock.advance(10);
          await settled();
        }
        let extra = 0;
        for (const { winner, signals } of await Promise.all(outcomes)) {
          extra += signals.length - 1;
          expect(signals.length).toBeLessThanOrEqual(3);
          if (winner !== undefined) {
            expect(signals[winner - 1]?.aborted).toBe(false);
          }
        }
        expect(extra).toBeLessThanOrEqual(calls.length * 0.5);
        expect(hedger.stats().hedges).toBe(extra);
      },
    ),
    { numRuns: 50 },
  );
});

test("a classifier that fails itself ends the call with the work's own error", async () => {
  const { hedger, work, attempt } = setUp({
    classify: () => {
      throw new TypeError("the classifier is broken");
    },
  });
  const result = hedger.run(work, call);
  attempt(1).fail({ kind: "transient" });
  await expect(result).rejects.toThrow("transient");
});

test.each([{ delayMs: Number.NaN }, { delayMs: -1 }, { maxExtra: Number.NaN }, { maxExtra: 0.5 }])(
  "options that mean nothing are refused: %o",
  (options) => {
    expect(() => setUp(options)).toThrow(RangeError);
  },
);

test("a listener that ends the call when another attempt starts ends that one too", async () => {
  const caller = new AbortController();
  const { hedger, clock, work, attempts } = setUp({ onEvent: () => caller.abort("enough") });
  const result = hedger.run(work, { ...call, signal: caller.signal });
  const rejected = expect(result).rejects.toBe("enough");
  clock.advance(100);
  await rejected;
  expect(attempts.map(({ signal }) => signal.aborted)).toEqual([true, true]);
  expect(clock.pending).toBe(0);
});
