import { getHeapStatistics } from "node:v8";
import type { Clock } from "@toolplane/framework";
import { type CollectionsReport, createCollectionsMonitor } from "./collections.ts";
import { createEventLoopMonitor, type EventLoopOptions, type EventLoopReport } from "./event-loop.ts";
import { createGaugeWatch, type Gauge } from "./gauges.ts";
import type { Growth } from "./growth.ts";

/** How the process fares. */
export interface Runtime {
  readonly version: string;
  /** When the process started, in milliseconds since 1970. */
  readonly startedAt: number;
  /** Time that the processor has spent on it, in milliseconds. */
  cpuMs(): { readonly user: number; readonly system: number };
  eventLoop(): EventLoopReport;
  memory(): MemoryReport;
  close(): void;
}

/** How memory is used, in bytes. */
export interface MemoryReport {
  readonly residentBytes: number;
  readonly heapUsedBytes: number;
  readonly heapTotalBytes: number;
  readonly heapLimitBytes: number;
  readonly externalBytes: number;
  readonly collections: CollectionsReport;
  readonly leakSuspects: readonly LeakSuspect[];
}

/** Something that has only grown for a while. */
export interface LeakSuspect {
  readonly name: string;
  /** In its own unit. */
  readonly size: number;
  readonly growthPerHour: number;
  /** What speaks for it, in words. */
  readonly evidence: string;
}

export interface RuntimeOptions extends EventLoopOptions {
  readonly clock: Clock;
  readonly version: string;
  /** What is watched for growth. */
  readonly gauges: () => Iterable<Gauge>;
}

const MIB = 1024 * 1024;
/** A heap that grew by less is no suspect: collections leave a little more or less behind. */
const MIN_HEAP_GROWTH = 4 * MIB;

export function createRuntime({ clock, version, running, gauges }: RuntimeOptions): Runtime {
  const eventLoop = createEventLoopMonitor({ clock, running });
  const collections = createCollectionsMonitor(clock);
  const watch = createGaugeWatch(clock, gauges);

  function leakSuspects(heap: Growth): LeakSuspect[] {
    const suspects = watch.suspects().map(({ name, growth }) => ({
      name,
      size: growth.last,
      growthPerHour: growth.perHour,
      evidence: `has not shrunk for ${minutes(growth.spanMs)}: ${growth.first} became ${growth.last}`,
    }));
    if (!heap.onlyGrew || heap.last - heap.first < MIN_HEAP_GROWTH) {
      return suspects;
    }
    const evidence = `no full collection has left less than the one before for ${minutes(heap.spanMs)}: ${mebibytes(heap.first)} became ${mebibytes(heap.last)}`;
    return [{ name: "heap", size: heap.last, growthPerHour: heap.perHour, evidence }, ...suspects];
  }

  return {
    version,
    startedAt: Math.round(clock.now() - process.uptime() * 1_000),
    cpuMs() {
      const { user, system } = process.cpuUsage();
      return { user: user / 1_000, system: system / 1_000 };
    },
    eventLoop: () => eventLoop.read(),
    memory() {
      const { rss, heapUsed, heapTotal, external } = process.memoryUsage();
      const report = collections.read();
      return {
        residentBytes: rss,
        heapUsedBytes: heapUsed,
        heapTotalBytes: heapTotal,
        heapLimitBytes: getHeapStatistics().heap_size_limit,
        externalBytes: external,
        collections: report,
        leakSuspects: leakSuspects(report.heap),
      };
    },
    close() {
      eventLoop.close();
      collections.close();
      watch.close();
    },
  };
}

function minutes(ms: number): string {
  return `${Math.round(ms / 60_000)} min`;
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}
