import type { Clock } from "@toolplane/framework";
import type { EventLog } from "../../event-log/event-log.ts";

/** What runs have appended to the event log since the start. Durations in milliseconds. */
export interface AppendStats {
  /** Appends that are not durable yet. */
  readonly pending: number;
  readonly appends: number;
  readonly events: number;
  readonly failures: number;
  /** Until they were durable, together. */
  readonly totalMs: number;
  readonly maxMs: number;
}

/** Counts appends, and how long they take. */
export interface AppendMeter {
  metered(eventLog: EventLog): EventLog;
  stats(): AppendStats;
}

export function createAppendMeter(clock: Clock): AppendMeter {
  const counts = { pending: 0, appends: 0, events: 0, failures: 0, totalMs: 0, maxMs: 0 };
  return {
    metered: (eventLog) => ({
      create: (transaction, stream) => eventLog.create(transaction, stream),
      read: (stream, after, limit) => eventLog.read(stream, after, limit),
      watch: (stream, options) => eventLog.watch(stream, options),
      remove: (transaction, streams) => eventLog.remove(transaction, streams),
      close: () => eventLog.close(),
      async append(append) {
        const startedAt = clock.monotonic();
        counts.pending++;
        try {
          const appended = await eventLog.append(append);
          const ms = clock.monotonic() - startedAt;
          counts.appends++;
          counts.events += append.events.length;
          counts.totalMs += ms;
          counts.maxMs = Math.max(counts.maxMs, ms);
          return appended;
        } catch (error) {
          counts.failures++;
          throw error;
        } finally {
          counts.pending--;
        }
      },
    }),
    stats: () => ({ ...counts }),
  };
}
