import type { ClaimedRun, Journal } from "./journal.ts";

/** Does what runs say. */
export interface Engine {
  /**
   * Goes on with a run from where its journal says it is, until it has ended (`finished`), waits for nothing but time or
   * people (`parked`), or is to be left (`left`): another worker has it, or the signal was aborted with a
   * `ReleasedError`. Aborted with a `CancelledError`, it ends the run as cancelled. Throws only when the database is away
   * for good; then the run is another worker's to take over.
   */
  drive(run: ClaimedRun, journal: Journal, control: RunControl): Promise<"finished" | "parked" | "left">;
}

export interface RunControl {
  readonly signal: AbortSignal;
  /** Calls back when an approval of this run may have been resolved. Returns how to stop that. */
  onAnswer(callback: () => void): () => void;
  /**
   * Told when the run comes to do nothing but wait for runs and test runs that it has started, and when it goes on:
   * whoever drives it may drive another one meanwhile. Default: nobody is told.
   */
  readonly onIdle?: ((isIdle: boolean) => void) | undefined;
}

/** Somebody wants the run to stop. */
export class CancelledError extends Error {
  override readonly name = "CancelledError";
  readonly by: string;

  constructor(by: string, message: string) {
    super(message);
    this.by = by;
  }
}

/** This worker stops; another one goes on with the run. */
export class ReleasedError extends Error {
  override readonly name = "ReleasedError";
  /** How long what has begun may take to end, in milliseconds; nothing else begins meanwhile. */
  readonly graceMs: number;

  constructor(message: string, graceMs = 0) {
    super(message);
    this.graceMs = graceMs;
  }
}
