import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type Clock, systemClock } from "@toolplane/framework";
import { expect, onTestFinished, test } from "vitest";
import { createFakeClock, type FakeClock } from "../../framework/test-support/fake-clock.ts";
import { createCollectionsMonitor } from "./collections.ts";
import { createEventLoopMonitor } from "./event-loop.ts";
import { createGaugeWatch, type Gauge } from "./gauges.ts";
import { createRuntime } from "./runtime.ts";

const MINUTE = 60_000;
const MIB = 1024 * 1024;

const idle = { active: () => [], forgetEnded: () => {} };

/** A clock whose timers can be late: time that `holdUp` lets pass is noticed by nobody meanwhile. */
function createHeldUpClock(): { fake: FakeClock; clock: Clock; holdUp(ms: number): void } {
  const fake = createFakeClock();
  let heldMs = 0;
  return {
    fake,
    clock: { ...fake, now: () => fake.now() + heldMs, monotonic: () => fake.monotonic() + heldMs },
    holdUp(ms) {
      heldMs += ms;
    },
  };
}

test("a callback that holds everything up is noticed, with what ran", () => {
  const { fake, clock, holdUp } = createHeldUpClock();
  const monitor = createEventLoopMonitor({
    clock,
    running: { active: () => ["a.B/C"], forgetEnded: () => {} },
  });
  fake.advance(1_000);
  expect(monitor.read()).toMatchObject({ delayMaxMs: 0, slowCallbackCount: 0 });
  holdUp(180);
  fake.advance(20);
  expect(monitor.read()).toMatchObject({
    delayMaxMs: 180,
    slowCallbackCount: 1,
    slowCallbacks: [{ time: clock.now(), durationMs: 180, methods: ["a.B/C"] }],
  });
  monitor.close();
  expect(fake.pending).toBe(0);
});

test("delays of the last minute count, slow callbacks are remembered longer, but not all of them", () => {
  const { fake, clock, holdUp } = createHeldUpClock();
  const monitor = createEventLoopMonitor({ clock, running: idle });
  for (let n = 0; n < 60; n++) {
    holdUp(150 + n);
    fake.advance(20);
  }
  expect(monitor.read().delayP50Ms).toBeGreaterThan(140);
  expect(monitor.read().slowCallbacks).toHaveLength(50);
  expect(monitor.read().slowCallbacks[0]?.durationMs).toBe(209);
  fake.advance(MINUTE + 10_000);
  expect(monitor.read()).toMatchObject({ delayMaxMs: 0, slowCallbackCount: 60 });
  expect(monitor.read().delayP50Ms).toBeLessThan(1);
  monitor.close();
});

test("a loop that is really held up is noticed", async () => {
  const monitor = createEventLoopMonitor({ clock: systemClock, running: idle });
  onTestFinished(() => monitor.close());
  await new Promise((resolve) => setTimeout(resolve, 1));
  const end = performance.now() + 150;
  while (performance.now() < end);
  await expect.poll(() => monitor.read().slowCallbackCount).toBeGreaterThan(0);
  expect(monitor.read().utilization).toBeGreaterThan(0);
});

test("full collections are seen, and what they leave", async () => {
  const monitor = createCollectionsMonitor(systemClock);
  onTestFinished(() => monitor.close());
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  collect();
  await expect.poll(() => monitor.read().heapAfterBytes).toBeGreaterThan(0);
  expect(monitor.read().kinds.get("major")?.count).toBeGreaterThan(0);
  expect(monitor.read().share).toBeGreaterThan(0);
});

test("the growth of the heap and the share of collections are those of what was seen", () => {
  const clock = createFakeClock();
  const monitor = createCollectionsMonitor(clock);
  for (let n = 0; n < 5; n++) {
    clock.advance(6 * MINUTE);
    monitor.record("major", 0, (100 + n) * MIB);
  }
  clock.advance(10_000);
  monitor.record("minor", 500, 0);
  clock.advance(9_000);
  const report = monitor.read();
  expect(report.heapAfterBytes).toBe(104 * MIB);
  expect(report.growthBytesPerHour).toBeCloseTo(10 * MIB, -2);
  expect(report.share).toBeGreaterThan(0);
  expect(report.share).toBeLessThan(0.1);
  monitor.close();
});

test("sizes that only grew for a quarter of an hour are suspect, others are not", () => {
  const clock = createFakeClock();
  let minutes = 0;
  const sizes: Record<string, () => number> = {
    growing: () => minutes,
    steady: () => 7,
    saw: () => minutes % 5,
  };
  const read = function* (): Generator<Gauge> {
    for (const [name, size] of Object.entries(sizes)) {
      yield { name, size: size() };
    }
  };
  const watch = createGaugeWatch(clock, read);
  for (; minutes < 15; minutes++) {
    clock.advance(MINUTE);
  }
  expect(watch.suspects()).toEqual([]);
  clock.advance(MINUTE);
  expect(watch.suspects()).toMatchObject([{ name: "growing", growth: { first: 0, last: 15 } }]);
  delete sizes["growing"];
  clock.advance(MINUTE);
  expect(watch.suspects()).toEqual([]);
  watch.close();
  expect(clock.pending).toBe(0);
});

test("a suspect is described with its size, its growth and what speaks for it", () => {
  const clock = createFakeClock();
  let size = 0;
  const runtime = createRuntime({
    clock,
    version: "1.0.0",
    running: idle,
    gauges: () => [{ name: "streams a.B/C", size: size++ }],
  });
  clock.advance(16 * MINUTE);
  expect(runtime.memory().leakSuspects).toEqual([
    {
      name: "streams a.B/C",
      size: 15,
      growthPerHour: expect.closeTo(60),
      evidence: "has not shrunk for 15 min: 0 became 15",
    },
  ]);
  runtime.close();
  expect(clock.pending).toBe(0);
});
