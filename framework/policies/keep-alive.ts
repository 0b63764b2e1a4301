import { MAX_TIMER_MS } from "../clock.ts";

/**
 * Keeps the process alive until the returned function is called. Timers of a clock let it end; where someone waits for
 * nothing but such a timer, between two calls that have no connection open, a command line would end in the middle.
 */
export function keepAlive(): () => void {
  const timer = setInterval(() => {}, MAX_TIMER_MS);
  return () => clearInterval(timer);
}
