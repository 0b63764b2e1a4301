import type { Clock } from "@toolplane/framework";

const SLICE_MS = 10_000;
const SLICES = 6;

/** What is observed over the last minute, in slices of ten seconds: the oldest is dropped as a whole. */
export interface SlidingWindow<Slice> {
  /** Where observations of now go. */
  current(): Slice;
  /** All slices, the oldest first, and for how long they go back, in milliseconds. */
  read(): { readonly slices: readonly Slice[]; readonly lengthMs: number };
}

export function createSlidingWindow<Slice>(clock: Clock, createSlice: () => Slice): SlidingWindow<Slice> {
  let kept = [{ since: clock.monotonic(), slice: createSlice() }];

  function advance(): void {
    const now = clock.monotonic();
    if (now - (kept.at(-1)?.since ?? 0) >= SLICE_MS) {
      kept = [...kept, { since: now, slice: createSlice() }].filter(
        ({ since }) => now - since < SLICES * SLICE_MS,
      );
    }
  }

  return {
    current() {
      advance();
      // There is always one: the last is kept, or new.
      return kept[kept.length - 1]?.slice ?? createSlice();
    },
    read() {
      advance();
      return {
        slices: kept.map(({ slice }) => slice),
        lengthMs: clock.monotonic() - (kept[0]?.since ?? clock.monotonic()),
      };
    },
  };
}
