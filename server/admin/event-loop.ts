import { type EventLoopUtilization, performance } from "node:perf_hooks";
import type { Clock } from "@toolplane/framework";
import { LatencyHistogram } from "./latency-histogram.ts";
import { createSlidingWindow } from "./sliding-window.ts";

/** How the event loop fares. Durations are in milliseconds. */
export interface EventLoopReport {
  /** By how much timers were late over the last minute. */
  readonly delayP50Ms: number;
  readonly delayP99Ms: number;
  readonly delayMaxMs: number;
  /** The share of the last minute that the loop was busy, from 0 to 1. */
  readonly utilization: number;
  /** The latest times that one callback held everything up, the newest first. */
  readonly slowCallbacks: readonly SlowCallback[];
  /** How many there have been. */
  readonly slowCallbackCount: number;
}

export interface SlowCallback {
  /** When it was noticed, in milliseconds since 1970. */
  readonly time: number;
  /** At least for how long; at most 20 ms more. */
  readonly durationMs: number;
  /** The methods whose calls ran, those with most calls first. */
  readonly methods: readonly string[];
}

export interface EventLoopMonitor {
  read(): EventLoopReport;
  close(): void;
}

export interface EventLoopOptions {
  readonly clock: Clock;
  /** What ran since `forgetEnded` was last called. */
  readonly running: { active(limit: number): string[]; forgetEnded(): void };
}

const TICK_MS = 20;
const SLOW_MS = 100;
const MAX_SLOW_CALLBACKS = 50;
const MAX_METHODS = 10;

/**
 * Watches the event loop by a timer of its own: how late it is tells how long others had to wait. Node's own
 * `monitorEventLoopDelay` says neither when it was late nor what ran, and knows no sliding window.
 */
export function createEventLoopMonitor({ clock, running }: EventLoopOptions): EventLoopMonitor {
  const minute = createSlidingWindow(clock, () => ({
    delays: new LatencyHistogram(),
    maxMs: 0,
    busySince: performance.eventLoopUtilization(),
  }));
  const slowCallbacks: SlowCallback[] = [];
  let slowCallbackCount = 0;
  let due = clock.monotonic() + TICK_MS;
  let cancel = clock.after(TICK_MS, tick);

  function tick(): void {
    const now = clock.monotonic();
    const lateMs = Math.max(0, now - due);
    const slice = minute.current();
    slice.delays.record(lateMs);
    slice.maxMs = Math.max(slice.maxMs, lateMs);
    if (lateMs > SLOW_MS) {
      slowCallbackCount++;
      slowCallbacks.unshift({
        time: clock.now(),
        durationMs: lateMs,
        methods: running.active(MAX_METHODS),
      });
      slowCallbacks.length = Math.min(slowCallbacks.length, MAX_SLOW_CALLBACKS);
    }
    running.forgetEnded();
    due = now + TICK_MS;
    cancel = clock.after(TICK_MS, tick);
  }

  return {
    read() {
      const { slices } = minute.read();
      const delays = new LatencyHistogram();
      for (const slice of slices) {
        delays.add(slice.delays);
      }
      const delayMaxMs = Math.max(...slices.map(({ maxMs }) => maxMs));
      return {
        // A quantile is only known as the middle of its bucket.
        delayP50Ms: Math.min(delays.quantile(0.5), delayMaxMs),
        delayP99Ms: Math.min(delays.quantile(0.99), delayMaxMs),
        delayMaxMs,
        utilization: utilizationSince(slices[0]?.busySince),
        slowCallbacks: [...slowCallbacks],
        slowCallbackCount,
      };
    },
    close: () => cancel(),
  };
}

function utilizationSince(earlier: EventLoopUtilization | undefined): number {
  return performance.eventLoopUtilization(earlier).utilization;
}
