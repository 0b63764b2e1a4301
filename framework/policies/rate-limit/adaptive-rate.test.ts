import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import {
  type AdaptiveRateEvent,
  type AdaptiveRateOptions,
  createAdaptiveRate,
  type RateOutcome,
} from "./adaptive-rate.ts";

function setUp(options: AdaptiveRateOptions = {}) {
  const clock = createFakeClock();
  const events: AdaptiveRateEvent[] = [];
  const rate = createAdaptiveRate({ clock, onEvent: (event) => events.push(event), ...options });
  /** Makes calls one after the other, each as soon as it may. */
  async function call(times: number, outcome: RateOutcome, latencyMs?: number) {
    for (let index = 0; index < times; index++) {
      const acquired = rate.acquire();
      clock.advance(1_000 / rate.stats().rate + 1);
      (await acquired).done(outcome, latencyMs);
    }
  }
  return { clock, events, rate, call };
}

test("it begins at 10 calls a second, after a burst of 5", async () => {
  const { clock, rate } = setUp();
  const gone: number[] = [];
  for (let index = 0; index < 20; index++) {
    rate.acquire().then(
      () => gone.push(index),
      () => {}, // those who still wait in the end
    );
  }
  await Promise.resolve();
  expect(gone).toEqual([0, 1, 2, 3, 4]);
  clock.advance(99);
  await Promise.resolve();
  expect(gone).toHaveLength(5);
  clock.advance(1);
  await Promise.resolve();
  expect(gone).toEqual([0, 1, 2, 3, 4, 5]);
  clock.advance(1_000);
  await Promise.resolve();
  expect(gone).toEqual(Array.from({ length: 16 }, (_, index) => index));
  expect(rate.stats()).toMatchObject({ rate: 10, waiting: 4, acquired: 16, waited: 11, maxWaitMs: 1_100 });
  rate.close();
});

test("successes raise it by about one a second, to 100 at most", async () => {
  const { events, rate, call } = setUp();
  await call(10, "success");
  expect(rate.stats().rate).toBeCloseTo(11, 0);
  expect(events).toEqual([]);
  await call(5_500, "success");
  expect(rate.stats().rate).toBe(100);
  expect(events[0]).toMatchObject({ kind: "rate_raised", from: 10 });
  expect(events.at(-1)).toMatchObject({ kind: "rate_raised", to: 100 });
  expect(events.length).toBeLessThanOrEqual(90);
});

test("a failure halves it, to 1 at least, and calls that were on their way together count once", async () => {
  const { events, rate, clock } = setUp({ burst: 10 });
  const together = await Promise.all(Array.from({ length: 8 }, () => rate.acquire()));
  clock.advance(1);
  for (const permit of together) {
    permit.done("failure");
    permit.done("failure");
  }
  expect(events).toEqual([{ kind: "rate_cut", from: 10, to: 5, cause: "failure" }]);
  for (let round = 0; round < 5; round++) {
    clock.advance(1_000);
    (await rate.acquire()).done("failure");
  }
  expect(rate.stats()).toMatchObject({ rate: 1, cuts: 4 });
});

test("what says nothing about the backend changes nothing", async () => {
  const { events, rate, call } = setUp();
  await call(50, "ignored", 10_000);
  expect(rate.stats()).toMatchObject({ rate: 10, raises: 0, cuts: 0, latencyMs: undefined });
  expect(events).toEqual([]);
});

test("calls that take several times as long as usual cut it, and what lasts becomes usual", async () => {
  const { events, rate, call } = setUp();
  await call(30, "success", 20);
  await call(10, "success", 100);
  expect(events.filter(({ kind }) => kind === "rate_cut")[0]).toMatchObject({ cause: "latency" });
  await call(200, "success", 100);
  const { cuts, usualLatencyMs } = rate.stats();
  expect(usualLatencyMs).toBeGreaterThan(90);
  await call(100, "success", 100);
  expect(rate.stats().cuts).toBe(cuts);
});

test("a single slow call, and noise of a few milliseconds, cut nothing", async () => {
  const { rate, call } = setUp();
  await call(50, "success", 20);
  await call(1, "success", 80);
  await call(50, "success", 20);
  expect(rate.stats().cuts).toBe(0);
  const fast = setUp();
  await fast.call(50, "success", 0.1);
  await fast.call(50, "success", 9);
  expect(fast.rate.stats().cuts).toBe(0);
});

test("nobody waits longer than 30 s", async () => {
  const { clock, rate } = setUp({ initialRate: 1, burst: 1 });
  const calls = Array.from({ length: 33 }, () =>
    rate.acquire().then(
      () => "gone",
      (error: Error) => error,
    ),
  );
  clock.advance(30_000);
  const outcomes = await Promise.all(calls);
  expect(outcomes.filter((outcome) => outcome === "gone")).toHaveLength(31);
  expect(outcomes[32]).toMatchObject({ name: "AdaptiveRateError", reason: "WAITED_TOO_LONG" });
  expect(rate.stats()).toMatchObject({ waiting: 0, timedOut: 2 });
  expect(clock.pending).toBe(0);
});

test("when too many wait, the next one is told at once when to come again", async () => {
  const { rate } = setUp({ burst: 1, maxWaiting: 2 });
  const [, second, third] = [rate.acquire(), rate.acquire(), rate.acquire()];
  await expect(rate.acquire()).rejects.toMatchObject({ reason: "QUEUE_FULL", retryAfterMs: 300 });
  rate.close();
  await expect(second).rejects.toMatchObject({ reason: "CLOSED" });
  await expect(third).rejects.toMatchObject({ reason: "CLOSED" });
  await expect(rate.acquire()).rejects.toMatchObject({ reason: "CLOSED" });
});

test("whoever gives up leaves the line, and takes no token", async () => {
  const { clock, rate } = setUp({ burst: 1 });
  const leaving = new AbortController();
  await rate.acquire();
  const first = rate.acquire(leaving.signal);
  const second = rate.acquire();
  leaving.abort(new Error("left"));
  await expect(first).rejects.toThrow("left");
  await expect(rate.acquire(leaving.signal)).rejects.toThrow("left");
  clock.advance(100);
  expect((await second).waitedMs).toBe(100);
  expect(rate.stats()).toMatchObject({ cancelled: 1, acquired: 2, waiting: 0 });
  expect(clock.pending).toBe(0);
});

test("a rise lets those who wait go earlier", async () => {
  const { clock, rate } = setUp({ initialRate: 1, burst: 1, increase: 9 });
  const permit = await rate.acquire();
  const waiting = rate.acquire();
  permit.done("success");
  expect(rate.stats().rate).toBe(10);
  clock.advance(100);
  expect((await waiting).waitedMs).toBe(100);
});

test("whatever happens, the rate stays within its bounds, calls go in order, and no more than tokens there were", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.oneof(
          fc.record({ kind: fc.constant("acquire" as const) }),
          fc.record({ kind: fc.constant("advance" as const), ms: fc.integer({ min: 0, max: 400 }) }),
          fc.record({ kind: fc.constant("abort" as const), index: fc.nat(20) }),
          fc.record({
            kind: fc.constant("done" as const),
            outcome: fc.constantFrom<RateOutcome>("success", "failure", "ignored"),
            latencyMs: fc.integer({ min: 0, max: 200 }),
          }),
        ),
        { maxLength: 120 },
      ),
      async (steps) => {
        const { clock, rate } = setUp({ maxWaiting: 8, maxWaitMs: 2_000, burst: 3, maxRate: 20 });
        const leaving: AbortController[] = [];
        const gone: number[] = [];
        const permits: { done(outcome: RateOutcome, latencyMs?: number): void }[] = [];
        let calls = 0;
        let tokens = 3;
        for (const step of steps) {
          switch (step.kind) {
            case "acquire": {
              const call = calls++;
              const controller = new AbortController();
              leaving.push(controller);
              rate.acquire(controller.signal).then(
                (permit) => {
                  gone.push(call);
                  permits.push(permit);
                },
                () => {},
              );
              break;
            }
            case "advance":
              tokens += (step.ms * rate.stats().rate) / 1_000;
              clock.advance(step.ms);
              break;
            case "abort":
              leaving[step.index]?.abort(new Error("left"));
              break;
            case "done":
              permits.pop()?.done(step.outcome, step.latencyMs);
          }
          await Promise.resolve();
          const { rate: now, waiting, acquired } = rate.stats();
          expect(now).toBeGreaterThanOrEqual(1);
          expect(now).toBeLessThanOrEqual(20);
          expect(waiting).toBeLessThanOrEqual(8);
          expect(acquired).toBeLessThanOrEqual(tokens + 1e-6);
          expect(gone).toEqual(gone.toSorted((a, b) => a - b));
        }
        clock.advance(2_001);
        const { acquired, queueFull, timedOut, cancelled, waiting } = rate.stats();
        expect(waiting).toBe(0);
        expect(acquired + queueFull + timedOut + cancelled).toBeLessThanOrEqual(calls);
        expect(clock.pending).toBe(0);
      },
    ),
  );
});

test("a process does not end while a call waits for its turn", () => {
  const script = `
    import { createAdaptiveRate } from ${JSON.stringify(import.meta.resolve("./adaptive-rate.ts"))};
    const rate = createAdaptiveRate({ initialRate: 100, burst: 1 });
    await rate.acquire();
    await rate.acquire();
    console.log("done");
  `;
  expect(
    execFileSync(process.execPath, ["--input-type=module", "--eval", script], { encoding: "utf8" }),
  ).toBe("done\n");
});

test.each([
  { initialRate: Number.NaN },
  { minRate: 0 },
  { maxRate: Number.POSITIVE_INFINITY },
  { burst: 0 },
  { increase: Number.NaN },
  { increase: -1 },
  { failureFactor: Number.NaN },
  { failureFactor: 1.5 },
  { latencyFactor: -0.5 },
  { latencyTolerance: Number.NaN },
  { maxWaitMs: Number.NaN },
  { maxWaiting: -1 },
])("options that mean nothing are refused: %o", (options) => {
  expect(() => createAdaptiveRate(options)).toThrow(RangeError);
});
