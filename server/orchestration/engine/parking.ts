import type { Clock } from "@toolplane/framework";
import type { Journal } from "./journal.ts";
import { untilAborted } from "./sleep.ts";

/** The run stays here when something is to happen within this time, in milliseconds. */
const WORTHWHILE_MS = 5_000;
/** After an answer that nothing waits for, in milliseconds. */
const AGAIN_MS = 1_000;

/**
 * Knows what a run waits for, and lets go of it when it does nothing else. What a run does is counted in lanes: each does
 * one thing at a time, or waits.
 */
export interface Parking {
  /** So many more lanes are in use. */
  enter(lanes?: number): void;
  leave(): void;
  /** Waits in the caller's lane for what is to happen at `until`, or at no known time. */
  wait<T>(until: number | undefined, happening: Promise<T>): Promise<T>;
  /** Looks whether everything waits. */
  check(): void;
}

export interface ParkingOptions {
  readonly journal: Pick<Journal, "park">;
  /** Resolves when everything that was recorded is durable. */
  readonly flushed: () => Promise<void>;
  /** The run could not be let go of, since an answer has come. */
  readonly onAnswer: () => Promise<void>;
  readonly onParked: () => void;
  readonly onFailure: (error: unknown) => void;
  /** Aborted when the run ends here. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
}

export function createParking(options: ParkingOptions): Parking {
  const { journal, flushed, onAnswer, onParked, onFailure, signal, clock } = options;
  const waits = new Set<{ readonly until: number | undefined }>();
  let lanes = 0;
  /** While the run is being let go of, nothing begins. */
  let parking: Promise<void> | undefined;

  /** Undefined: not everything waits, or not for long. */
  function quiet(): { readonly until: number | undefined } | undefined {
    if (signal.aborted || lanes === 0 || waits.size < lanes) {
      return undefined;
    }
    let first = Number.POSITIVE_INFINITY;
    for (const { until } of waits) {
      first = Math.min(first, until ?? first);
    }
    return first <= clock.now() + WORTHWHILE_MS
      ? undefined
      : { until: Number.isFinite(first) ? first : undefined };
  }

  async function park(): Promise<void> {
    await flushed();
    const now = quiet();
    if (now === undefined) {
      return;
    }
    if (await journal.park(now.until)) {
      onParked();
      return;
    }
    const before = waits.size;
    await onAnswer();
    if (waits.size === before) {
      clock.after(AGAIN_MS, check);
    }
  }

  function check(): void {
    if (parking === undefined && quiet() !== undefined) {
      parking = park()
        .catch(onFailure)
        .finally(() => {
          parking = undefined;
        });
    }
  }

  return {
    enter(more = 1) {
      lanes += more;
    },
    leave() {
      lanes -= 1;
      check();
    },
    async wait(until, happening) {
      const wait = { until };
      waits.add(wait);
      check();
      try {
        const happened = await happening;
        while (parking !== undefined) {
          await untilAborted(parking, signal);
        }
        return happened;
      } finally {
        waits.delete(wait);
      }
    },
    check,
  };
}
