import { constants, type PerformanceEntry, PerformanceObserver } from "node:perf_hooks";
import { getHeapStatistics } from "node:v8";
import type { Clock } from "@toolplane/framework";
import { Growth } from "./growth.ts";
import { createSlidingWindow } from "./sliding-window.ts";

/** What garbage collection tells about memory. */
export interface CollectionsReport {
  /** What was left after the last full collection, in bytes; 0: there was none yet. */
  readonly heapAfterBytes: number;
  readonly growthBytesPerHour: number;
  /** The share of the last minute that was spent on collections, from 0 to 1. */
  readonly share: number;
  /** What was left after the last full collections; it only grew over all of them when it says so. */
  readonly heap: Growth;
  /** Collections and their time since the start, by kind. */
  readonly kinds: ReadonlyMap<CollectionKind, { readonly count: number; readonly durationMs: number }>;
}

export type CollectionKind = "major" | "minor" | "incremental" | "weak-callbacks";

export interface CollectionsMonitor {
  /** Called for every collection; for tests. */
  record(kind: CollectionKind, durationMs: number, heapUsedBytes: number): void;
  read(): CollectionsReport;
  close(): void;
}

/** Full collections that are remembered; a heap that grew over all of them is suspect. */
const REMEMBERED = 10;

export function createCollectionsMonitor(clock: Clock): CollectionsMonitor {
  const minute = createSlidingWindow(clock, () => ({ durationMs: 0 }));
  const heap = new Growth(REMEMBERED);
  const kinds = new Map<CollectionKind, { count: number; durationMs: number }>();
  let heapAfterBytes = 0;

  function record(kind: CollectionKind, durationMs: number, heapUsedBytes: number): void {
    const total = kinds.get(kind) ?? { count: 0, durationMs: 0 };
    kinds.set(kind, { count: total.count + 1, durationMs: total.durationMs + durationMs });
    minute.current().durationMs += durationMs;
    if (kind === "major") {
      heapAfterBytes = heapUsedBytes;
      heap.add(clock.monotonic(), heapUsedBytes);
    }
  }

  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      // Collections come before their report: what was allocated in between is counted as left.
      record(kindOf(entry), entry.duration, getHeapStatistics().used_heap_size);
    }
  });
  observer.observe({ entryTypes: ["gc"] });

  return {
    record,
    read() {
      const { slices, lengthMs } = minute.read();
      const spentMs = slices.reduce((sum, { durationMs }) => sum + durationMs, 0);
      return {
        heapAfterBytes,
        growthBytesPerHour: heap.perHour,
        share: lengthMs > 0 ? Math.min(1, spentMs / lengthMs) : 0,
        heap,
        kinds,
      };
    },
    close: () => observer.disconnect(),
  };
}

function kindOf(entry: PerformanceEntry): CollectionKind {
  const detail: unknown = "detail" in entry ? entry.detail : undefined;
  const kind = typeof detail === "object" && detail !== null && "kind" in detail ? detail.kind : undefined;
  switch (kind) {
    case constants.NODE_PERFORMANCE_GC_MAJOR:
      return "major";
    case constants.NODE_PERFORMANCE_GC_INCREMENTAL:
      return "incremental";
    case constants.NODE_PERFORMANCE_GC_WEAKCB:
      return "weak-callbacks";
    default:
      return "minor";
  }
}
