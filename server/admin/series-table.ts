import type { Clock } from "@toolplane/framework";
import { CallSeries } from "./call-series.ts";

/** What was not called for so long gives up its place, in milliseconds. */
const IDLE_MS = 600_000;
/** How often places are looked for when there are none, in milliseconds. */
const SWEEP_MS = 60_000;

/** Something that is called, and its calls. */
export type Series<T> = T & { readonly calls: CallSeries };

/** Counts the calls of many things, up to a number of them. */
export interface SeriesTable<T> {
  /** The calls of what has this key. It was called now. */
  callsOf(key: string, thing: T): CallSeries;
  /** All that have been called, and at the end, as `other`, all for which there was no place. */
  all(): Iterable<Series<T>>;
}

export function createSeriesTable<T extends object>(
  other: T,
  { clock, maxSeries }: { readonly clock: Clock; readonly maxSeries: number },
): SeriesTable<T> {
  const entries = new Map<string, { readonly series: Series<T>; lastUseAt: number }>();
  const rest: Series<T> = { ...other, calls: new CallSeries() };
  let nextSweepAt = 0;

  function sweep(): void {
    const now = clock.monotonic();
    if (now < nextSweepAt) {
      return;
    }
    nextSweepAt = now + SWEEP_MS;
    for (const [key, { series, lastUseAt }] of entries) {
      if (series.calls.inFlight === 0 && now - lastUseAt > IDLE_MS) {
        entries.delete(key);
      }
    }
  }

  return {
    callsOf(key, thing) {
      let entry = entries.get(key);
      if (entry === undefined) {
        if (entries.size >= maxSeries) {
          sweep();
        }
        if (entries.size >= maxSeries) {
          return rest.calls;
        }
        entry = { series: { ...thing, calls: new CallSeries() }, lastUseAt: 0 };
        entries.set(key, entry);
      }
      entry.lastUseAt = clock.monotonic();
      return entry.series.calls;
    },
    *all() {
      for (const { series } of entries.values()) {
        yield series;
      }
      if (rest.calls.ended + rest.calls.inFlight > 0) {
        yield rest;
      }
    },
  };
}
