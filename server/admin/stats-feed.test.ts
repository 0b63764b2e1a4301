import { durationMs } from "@bufbuild/protobuf/wkt";
import type { Stats } from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import { createInboundMeter } from "./inbound.ts";
import { createOutboundMeter } from "./outbound.ts";
import { createRuntime } from "./runtime.ts";
import type { AdminSources } from "./sources.ts";
import { createStatsFeed } from "./stats-feed.ts";

const weather = { service: "weather", environment: "default", version: "1.0.0" };

function open(sources: AdminSources = {}) {
  const clock = createFakeClock();
  const inbound = createInboundMeter();
  const outbound = createOutboundMeter(clock);
  const runtime = createRuntime({ clock, version: "1.0.0", running: inbound, gauges: () => [] });
  const timers = clock.pending;
  const feed = createStatsFeed({ clock, inbound, outbound, runtime, sources });
  onTestFinished(() => runtime.close());
  return { clock, inbound, outbound, feed, timers };
}

/** Watches in the background. */
function watch(stream: AsyncGenerator<Stats, void>) {
  const seen: Stats[] = [];
  const ended = (async () => {
    for await (const stats of stream) {
      seen.push(stats);
    }
  })();
  ended.catch(() => {});
  return { seen, ended };
}

test("an interval has the calls that ended in it, and none before", async () => {
  const { clock, outbound, feed } = open();
  outbound.callStarted({ ...weather, name: "weather.Get" })({ code: "internal", durationMs: 1_000 });
  const leave = new AbortController();
  const { seen } = watch(feed.watch(2_000, leave.signal));
  await expect.poll(() => clock.pending).toBeGreaterThan(2);
  outbound.callStarted({ ...weather, name: "weather.Get" });
  for (let n = 0; n < 10; n++) {
    outbound.callStarted({ ...weather, name: "weather.Get" })({
      code: n < 9 ? "ok" : "unavailable",
      durationMs: 16,
      attempts: 2,
    });
  }
  outbound.callStarted({ ...weather, name: "weather.Get" })({ code: "canceled", durationMs: 16 });
  clock.advance(2_000);
  await expect.poll(() => seen.length).toBe(1);
  clock.advance(2_000);
  await expect.poll(() => seen.length).toBe(2);
  leave.abort();
  const [first, second] = seen;
  // Who leaves has neither succeeded nor failed.
  expect(first?.outbound).toMatchObject({ perSecond: 5.5, successRate: 0.9, inFlight: 1n, retries: 10n });
  expect(first?.outbound?.latencyP99 && durationMs(first.outbound.latencyP99)).toBeCloseTo(16, -1);
  expect(first?.services).toMatchObject([{ ...weather, calls: { perSecond: 5.5 } }]);
  expect(first?.tools).toMatchObject([{ tool: "weather.Get", version: "1.0.0", calls: { perSecond: 5.5 } }]);
  expect(second?.outbound).toMatchObject({ perSecond: 0, successRate: 1, inFlight: 1n, retries: 0n });
  // It has a call that runs.
  expect(second?.services).toHaveLength(1);
});

test("those who watch at the same interval share the work, and the last one ends it", async () => {
  let reads = 0;
  const { clock, feed, timers } = open({
    limits: {
      list: () => [],
      totals() {
        reads++;
        return [{ level: "global", allowed: 0, refused: reads * 10 }];
      },
    },
  });
  const leave = new AbortController();
  const watches = Array.from({ length: 20 }, () => watch(feed.watch(1_000, leave.signal)));
  await expect.poll(() => clock.pending).toBe(timers + 1);
  expect(reads).toBe(1);
  clock.advance(1_000);
  await expect.poll(() => watches.every(({ seen }) => seen.length === 1)).toBe(true);
  expect(reads).toBe(2);
  expect(watches[7]?.seen[0]).toMatchObject({ limited: 10n, interval: { seconds: 1n } });
  leave.abort();
  await Promise.all(watches.map(({ ended }) => ended));
  expect(clock.pending).toBe(timers);
});

test("who asks for intervals of their own by the thousand make no more work than a few", async () => {
  const { clock, feed, timers } = open();
  const leave = new AbortController();
  const watches = Array.from({ length: 1_000 }, (_, n) => watch(feed.watch(1_000 + n / 2, leave.signal)));
  await expect.poll(() => clock.pending).toBeGreaterThan(timers);
  expect(clock.pending).toBe(timers + 3);
  leave.abort();
  await Promise.all(watches.map(({ ended }) => ended));
  expect(clock.pending).toBe(timers);
});

test("who reads slowly gets the newest interval, not all of them", async () => {
  const { clock, feed } = open();
  const leave = new AbortController();
  const stream = feed.watch(1_000, leave.signal);
  const first = stream.next();
  clock.advance(1_000);
  await first;
  clock.advance(5_000);
  const { value } = await stream.next();
  expect(value?.time?.seconds).toBe(BigInt(clock.now() / 1_000));
  leave.abort();
  expect(await stream.next()).toMatchObject({ done: true });
});

test("what cannot be read fails those who watch, and nobody else", async () => {
  const { clock, feed, timers } = open({
    pool() {
      throw new Error("the pool is gone");
    },
  });
  const { ended } = watch(feed.watch(1_000, new AbortController().signal));
  await expect.poll(() => clock.pending).toBe(timers + 1);
  clock.advance(1_000);
  await expect(ended).rejects.toThrow("the pool is gone");
  expect(clock.pending).toBe(timers);
});

test("closing sends those who watch to another server", async () => {
  const { clock, feed, timers } = open();
  const { ended } = watch(feed.watch(1_000, new AbortController().signal));
  await expect.poll(() => clock.pending).toBe(timers + 1);
  feed.close();
  await expect(ended).rejects.toMatchObject({ init: { reason: "SHUTTING_DOWN" } });
  expect(clock.pending).toBe(timers);
});
