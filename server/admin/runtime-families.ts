import type { MetricFamily } from "./exposition.ts";
import { counter, gauge } from "./families.ts";
import type { Runtime } from "./runtime.ts";

/** How the process fares, under the names that dashboards for Node know where there are any. */
export function runtimeFamilies(runtime: Runtime): MetricFamily[] {
  const cpu = runtime.cpuMs();
  const loop = runtime.eventLoop();
  const memory = runtime.memory();
  const collections = [...memory.collections.kinds];
  return [
    gauge("toolplane_build_info", "Always 1; the labels tell the versions.", [
      [{ version: runtime.version, node: process.version }, 1],
    ]),
    counter(
      "process_cpu_user_seconds_total",
      "Time the processor spent on the process itself.",
      cpu.user / 1_000,
    ),
    counter(
      "process_cpu_system_seconds_total",
      "Time the processor spent on behalf of the process.",
      cpu.system / 1_000,
    ),
    gauge(
      "process_start_time_seconds",
      "When the process started, in seconds since 1970.",
      runtime.startedAt / 1_000,
    ),
    gauge("process_resident_memory_bytes", "Memory the process holds.", memory.residentBytes),
    gauge(
      "nodejs_eventloop_lag_p50_seconds",
      "Half of the timers of the last minute were less late.",
      loop.delayP50Ms / 1_000,
    ),
    gauge(
      "nodejs_eventloop_lag_p99_seconds",
      "99 of 100 timers of the last minute were less late.",
      loop.delayP99Ms / 1_000,
    ),
    gauge(
      "nodejs_eventloop_lag_max_seconds",
      "The most that a timer of the last minute was late.",
      loop.delayMaxMs / 1_000,
    ),
    gauge(
      "nodejs_eventloop_utilization",
      "The share of the last minute that the event loop was busy.",
      loop.utilization,
    ),
    counter(
      "toolplane_slow_callbacks_total",
      "How often one callback held everything up for more than 100 ms.",
      loop.slowCallbackCount,
    ),
    gauge("nodejs_heap_size_used_bytes", "Memory used by JavaScript objects.", memory.heapUsedBytes),
    gauge("nodejs_heap_size_total_bytes", "Memory set aside for JavaScript objects.", memory.heapTotalBytes),
    gauge("nodejs_heap_size_limit_bytes", "The most that may be set aside.", memory.heapLimitBytes),
    gauge(
      "nodejs_external_memory_bytes",
      "Memory outside of the heap that objects in it hold.",
      memory.externalBytes,
    ),
    gauge(
      "toolplane_heap_after_collection_bytes",
      "What was left after the last full collection.",
      memory.collections.heapAfterBytes,
    ),
    gauge("toolplane_leak_suspects", "What has only grown for a while.", memory.leakSuspects.length),
    counter(
      "nodejs_gc_runs_total",
      "Garbage collections.",
      collections.map(([kind, { count }]) => [{ kind }, count] as const),
    ),
    counter(
      "nodejs_gc_seconds_total",
      "Time spent on garbage collections.",
      collections.map(([kind, { durationMs }]) => [{ kind }, durationMs / 1_000] as const),
    ),
  ];
}
