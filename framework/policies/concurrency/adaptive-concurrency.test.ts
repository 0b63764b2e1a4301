import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import {
  type AdaptiveConcurrency,
  type AdaptiveConcurrencyEvent,
  type AdaptiveConcurrencyOptions,
  createAdaptiveConcurrency,
  type Permit,
} from "./adaptive-concurrency.ts";

/** Uniform numbers from [0, 1) that are the same every time (mulberry32). */
function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Load {
  readonly seconds: number;
  /** Requests a second. */
  readonly rate: number;
  /** How long a piece of work takes by itself, in milliseconds, and how it is called. */
  readonly work: (random: () => number) => { readonly kind?: string; readonly ms: number };
}

interface Period {
  /** Pieces of work done a second. */
  readonly throughput: number;
  /** From admission to the end, in milliseconds. */
  readonly meanLatency: number;
  readonly refused: number;
  readonly lowest: number;
  readonly highest: number;
  readonly limit: number;
}

/** A server that does `workers` pieces of work at a time, the others wait for their turn; callers come at random. */
function createModel(workers: number, options: AdaptiveConcurrencyOptions = {}, seed = 1) {
  const random = seededRandom(seed);
  const events: AdaptiveConcurrencyEvent[] = [];
  let now = 0;
  const limiter = createAdaptiveConcurrency({
    clock: { now: () => now, monotonic: () => now, after: () => () => {} },
    onEvent: (event) => events.push(event),
    ...options,
  });
  interface Work {
    readonly permit: Permit;
    readonly admitted: number;
    readonly ms: number;
  }
  const waiting: Work[] = [];
  const running: { readonly work: Work; readonly ends: number }[] = [];

  function begin(): void {
    while (running.length < workers) {
      const work = waiting.shift();
      if (work === undefined) {
        return;
      }
      running.push({ work, ends: now + work.ms });
    }
  }

  function run({ seconds, rate, work }: Load): Period {
    const until = now + seconds * 1_000;
    const refusedBefore = limiter.stats().refused;
    let done = 0;
    let latencies = 0;
    let lowest = Number.POSITIVE_INFINITY;
    let highest = 0;
    const nextArrival = () => now + (-Math.log(1 - random()) / rate) * 1_000;
    let arrival = nextArrival();
    for (;;) {
      let first = 0;
      for (let index = 1; index < running.length; index++) {
        if ((running[index]?.ends ?? 0) < (running[first]?.ends ?? 0)) {
          first = index;
        }
      }
      const ending = running[first];
      if (Math.min(ending?.ends ?? arrival, arrival) > until) {
        break;
      }
      if (ending !== undefined && ending.ends <= arrival) {
        now = ending.ends;
        running.splice(first, 1);
        ending.work.permit.release("done");
        done += 1;
        latencies += now - ending.work.admitted;
      } else {
        now = arrival;
        arrival = nextArrival();
        const { kind, ms } = work(random);
        const permit = limiter.tryAcquire(kind);
        if (permit !== undefined) {
          waiting.push({ permit, admitted: now, ms });
        }
      }
      begin();
      const { limit, probing } = limiter.stats();
      if (!probing) {
        lowest = Math.min(lowest, limit);
        highest = Math.max(highest, limit);
      }
    }
    now = until;
    const { refused, limit } = limiter.stats();
    return {
      throughput: done / seconds,
      meanLatency: latencies / done,
      refused: refused - refusedBefore,
      lowest,
      highest,
      limit,
    };
  }
  return { run, limiter, events };
}

/** The same time for everything, give or take a little. */
const about = (ms: number) => (random: () => number) => ({ ms: ms * (0.8 + 0.4 * random()) });
/** Times of which a few are very long: the logarithm is normal, with the median given. */
const heavyTailed = (median: number) => (random: () => number) => ({
  ms: median * Math.exp(Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())),
});

test.each([
  [20, 20],
  [40, 50],
  [100, 50],
  [200, 200],
])(
  "offered three times what %i workers can do, they are kept busy and hardly anything waits (%i ms)",
  (workers, ms) => {
    const { run } = createModel(workers);
    const capacity = (workers / ms) * 1_000;
    const load = { rate: 3 * capacity, work: about(ms) };
    run({ ...load, seconds: 20 });
    const settled = run({ ...load, seconds: 60 });
    expect(settled.throughput).toBeGreaterThan(0.95 * capacity);
    expect(settled.meanLatency).toBeLessThan(2.5 * ms);
    expect(settled.highest).toBeLessThan(2.5 * workers);
  },
);

test("work whose times differ widely is kept to what the workers can do, too", () => {
  const { run } = createModel(50);
  const load = { rate: 3 * (50 / 33) * 1_000, work: heavyTailed(20) };
  run({ ...load, seconds: 20 });
  const settled = run({ ...load, seconds: 120 });
  expect(settled.throughput).toBeGreaterThan(0.9 * (50 / 33) * 1_000);
  expect(settled.meanLatency).toBeLessThan(3 * 33);
});

test("overload that lasts does not become what is usual", () => {
  const { run } = createModel(40);
  const load = { rate: 3 * 800, work: about(50) };
  run({ ...load, seconds: 20 });
  const early = run({ ...load, seconds: 60 });
  run({ ...load, seconds: 600 });
  const late = run({ ...load, seconds: 60 });
  expect(late.meanLatency).toBeLessThan(1.2 * early.meanLatency);
});

test("light traffic moves nothing, however long it lasts and however its latency changes", () => {
  const { run } = createModel(40);
  expect(run({ seconds: 300, rate: 100, work: about(50) })).toMatchObject({
    lowest: 100,
    highest: 100,
    refused: 0,
  });
  expect(run({ seconds: 300, rate: 30, work: heavyTailed(200) })).toMatchObject({
    lowest: 100,
    highest: 100,
    refused: 0,
  });
});

test("a limit that is in the way grows while nothing gets slower", () => {
  const { run } = createModel(500, { initial: 20 });
  const before = run({ seconds: 5, rate: 4_000, work: about(50) });
  expect(before.refused).toBeGreaterThan(0);
  run({ seconds: 25, rate: 4_000, work: about(50) });
  expect(run({ seconds: 30, rate: 4_000, work: about(50) }).throughput).toBeGreaterThan(3_900);
});

test("after a slow time the limit is back within seconds", () => {
  const { run } = createModel(100);
  const load = { rate: 1_800, work: about(50) };
  run({ ...load, seconds: 30 });
  const slow = run({ seconds: 30, rate: 1_800, work: about(500) });
  expect(slow.throughput).toBeLessThan(250);
  run({ ...load, seconds: 10 });
  expect(run({ ...load, seconds: 30 }).throughput).toBeGreaterThan(1_700);
});

test("work that has become slower for good is let through again as its own usual", () => {
  const { run } = createModel(200, { min: 20 });
  run({ seconds: 30, rate: 1_000, work: about(50) });
  // 100 ms instead of 50: the workers could take it, and 100 are in flight.
  run({ seconds: 120, rate: 1_000, work: about(100) });
  expect(run({ seconds: 30, rate: 1_000, work: about(100) }).throughput).toBeGreaterThan(950);
});

test("more of a slow kind of work does not look like overload", () => {
  const mixed = (share: number) => (random: () => number) =>
    random() < share ? { kind: "slow", ms: 400 } : { kind: "fast", ms: 20 };
  const { run } = createModel(400, { initial: 100 });
  run({ seconds: 30, rate: 800, work: mixed(0.02) });
  // 80 + 16 in flight at once, three times as long on average as before.
  run({ seconds: 10, rate: 800, work: mixed(0.25) });
  expect(run({ seconds: 30, rate: 800, work: mixed(0.25) }).refused).toBeLessThan(0.01 * 800 * 30);
});

test("a probe learns how long work takes, not only the work that is done first", () => {
  const work = (random: () => number) => ({ ms: random() < 0.9 ? 10 : 2_000 });
  const seeds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
  // About 63 in flight at once, of which nobody is in another's way.
  const refused = seeds.map(
    (seed) => createModel(400, {}, seed).run({ seconds: 300, rate: 300, work }).refused,
  );
  expect(refused.reduce((sum, each) => sum + each) / (seeds.length * 300 * 300)).toBeLessThan(0.1);
});

test("while the latency without load is measured, only the least is let through", () => {
  const { run, events, limiter } = createModel(40);
  run({ seconds: 200, rate: 2_400, work: about(50) });
  const probes = events.filter(({ kind }) => kind === "probe-started").length;
  // At once, and then every minute.
  expect(probes).toBe(4);
  expect(events.filter(({ kind }) => kind === "probe-finished")).toEqual(
    Array.from({ length: probes }, () => ({ kind: "probe-finished", samples: 50 })),
  );
  expect(limiter.stats()).toMatchObject({ probing: false });
});

/** Exhausts a limiter for one window, so that it begins a probe. */
function exhaust(limiter: AdaptiveConcurrency, advance: (ms: number) => void): Permit[] {
  const permits: Permit[] = [];
  for (let permit = limiter.tryAcquire(); permit; permit = limiter.tryAcquire()) {
    permits.push(permit);
  }
  advance(1_000);
  for (const permit of permits.splice(0, 10)) {
    permit.release("done");
  }
  return permits;
}

test("work that never ends does not keep a probe from ending", () => {
  const clock = createFakeClock();
  const limiter = createAdaptiveConcurrency({ clock });
  exhaust(limiter, clock.advance);
  expect(limiter.stats()).toMatchObject({ probing: true, limit: 20, inFlight: 90 });
  expect(limiter.tryAcquire()).toBeUndefined();
  clock.advance(10_000);
  expect(limiter.tryAcquire()).toBeDefined();
  expect(limiter.stats()).toMatchObject({ probing: false, limit: 100 });
});

test("a place can be given back once only, and what is refused counts", () => {
  const limiter = createAdaptiveConcurrency({ min: 1, initial: 1, clock: createFakeClock() });
  const permit = limiter.tryAcquire();
  expect(limiter.refuses()).toBe(true);
  expect(limiter.tryAcquire()).toBeUndefined();
  permit?.release("done");
  permit?.release("done");
  expect(limiter.stats()).toMatchObject({ inFlight: 0, admitted: 1, refused: 2 });
  expect(limiter.refuses()).toBe(false);
});

test("what was cut off counts as slow, but never as fast; what was ignored does not count", () => {
  const clock = createFakeClock();
  const limiter = createAdaptiveConcurrency({ clock });
  const round = (times: number, ms: number, outcome: "done" | "cut-off" | "ignored") => {
    const permits = Array.from({ length: times }, () => limiter.tryAcquire());
    clock.advance(ms);
    for (const permit of permits) {
      permit?.release(outcome);
    }
  };
  round(20, 100, "done");
  round(20, 300, "done");
  expect(limiter.stats().slowdown).toBeCloseTo(1);
  round(90, 500, "ignored");
  round(90, 20, "cut-off");
  clock.advance(500);
  round(90, 500, "cut-off");
  expect(limiter.stats().slowdown).toBeGreaterThan(2);
  expect(limiter.stats().limit).toBeLessThan(100);
});

test("bounds that are none are refused", () => {
  expect(() => createAdaptiveConcurrency({ min: 0 })).toThrow(RangeError);
  expect(() => createAdaptiveConcurrency({ min: 200 })).toThrow(RangeError);
  expect(() => createAdaptiveConcurrency({ max: 50 })).toThrow(RangeError);
});

test("whatever happens, no more is in flight than the limit allows when it is let in, and the limit keeps its bounds", () => {
  const action = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({ kind: fc.constant("acquire" as const), times: fc.integer({ min: 1, max: 60 }) }),
    },
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constantFrom("done" as const, "cut-off" as const, "ignored" as const),
        times: fc.integer({ min: 1, max: 60 }),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant("wait" as const), times: fc.integer({ min: 1, max: 5_000 }) }),
    },
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
      const clock = createFakeClock();
      const limiter = createAdaptiveConcurrency({
        min: 5,
        initial: 20,
        max: 50,
        probeIntervalMs: 10_000,
        clock,
      });
      const permits: Permit[] = [];
      for (const { kind, times } of actions) {
        if (kind === "wait") {
          clock.advance(times);
          continue;
        }
        for (let time = 0; time < times; time++) {
          if (kind === "acquire") {
            const before = limiter.stats();
            const permit = limiter.tryAcquire();
            if (permit !== undefined) {
              expect(before.inFlight).toBeLessThan(limiter.stats().limit);
              permits.push(permit);
            }
          } else {
            permits.shift()?.release(kind);
          }
          const { limit, inFlight } = limiter.stats();
          expect(limit).toBeGreaterThanOrEqual(5);
          expect(limit).toBeLessThanOrEqual(50);
          expect(inFlight).toBe(permits.length);
        }
      }
      for (const permit of permits.splice(0)) {
        permit.release("done");
      }
      clock.advance(20_000);
      expect(limiter.tryAcquire()).toBeDefined();
    }),
  );
});

test.each([
  { min: 0 },
  { max: 50 },
  { initial: Number.NaN },
  { tolerance: Number.NaN },
  { tolerance: 0.5 },
  { smoothing: 0 },
  { smoothing: Number.NaN },
  { smoothing: 2 },
  { windowMs: Number.NaN },
  { minLatencyMs: 0 },
  { probeIntervalMs: Number.NaN },
])("options that mean nothing are refused: %o", (options) => {
  expect(() => createAdaptiveConcurrency(options)).toThrow(RangeError);
});
