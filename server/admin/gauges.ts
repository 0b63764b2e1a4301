import type { Clock } from "@toolplane/framework";
import { Growth } from "./growth.ts";

/** Something whose size is looked at once a minute, to notice when it only grows. */
export interface Gauge {
  readonly name: string;
  readonly size: number;
}

export interface GaugeWatch {
  /** Those that only grew for as long as they are remembered. */
  suspects(): { readonly name: string; readonly growth: Growth }[];
  close(): void;
}

const INTERVAL_MS = 60_000;
/** Sizes that are remembered of each: what only grew for a quarter of an hour is suspect. */
const REMEMBERED = 16;
const MAX_GAUGES = 1_000;

/** @param read the gauges of now; one that is missing is forgotten */
export function createGaugeWatch(clock: Clock, read: () => Iterable<Gauge>): GaugeWatch {
  let growths = new Map<string, Growth>();
  let cancel = clock.after(INTERVAL_MS, look);

  function look(): void {
    cancel = clock.after(INTERVAL_MS, look);
    const next = new Map<string, Growth>();
    for (const { name, size } of readOrNothing()) {
      if (next.size < MAX_GAUGES) {
        const growth = growths.get(name) ?? new Growth(REMEMBERED);
        growth.add(clock.monotonic(), size);
        next.set(name, growth);
      }
    }
    growths = next;
  }

  /** What cannot be read tells nothing; in a timer nobody else would catch it. */
  function readOrNothing(): Gauge[] {
    try {
      return [...read()];
    } catch {
      return [];
    }
  }

  return {
    suspects: () =>
      [...growths].filter(([, growth]) => growth.onlyGrew).map(([name, growth]) => ({ name, growth })),
    close: () => cancel(),
  };
}
