import type { Clock } from "../clock.ts";

/** A clock that stands still until it is moved. */
export interface FakeClock extends Clock {
  /** Moves time on, calling back everything that falls due on the way, in order. */
  advance(ms: number): void;
  /** How many callbacks wait. */
  readonly pending: number;
}

export function createFakeClock(startMs = Date.UTC(2026, 0, 1)): FakeClock {
  let elapsed = 0;
  const timers = new Set<{ readonly due: number; readonly callback: () => void }>();
  return {
    now: () => startMs + elapsed,
    monotonic: () => elapsed,
    after(ms, callback) {
      const timer = { due: elapsed + Math.max(ms, 0), callback };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    advance(ms) {
      const end = elapsed + ms;
      for (;;) {
        const [next] = [...timers].filter(({ due }) => due <= end).sort((a, b) => a.due - b.due);
        if (next === undefined) {
          break;
        }
        timers.delete(next);
        elapsed = next.due;
        next.callback();
      }
      elapsed = end;
    },
    get pending() {
      return timers.size;
    },
  };
}
