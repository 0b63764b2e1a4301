import { type CloseReason, closeReasons } from "./connection.ts";
import type { PoolStats } from "./connection-pool.ts";

/** What a pool has done since it was made. Counts only grow. */
export class PoolCounters {
  #requests = 0;
  #reused = 0;
  #opened = 0;
  #connectFailures = 0;
  readonly #closed: Record<CloseReason, number>;
  #waits = 0;
  #waitMs = 0;
  #longestWaitMs = 0;
  #refused = 0;

  constructor() {
    const zeros = closeReasons.map((reason) => [reason, 0]);
    this.#closed = Object.fromEntries(zeros); // One for each reason.
  }

  request(reused: boolean): void {
    this.#requests++;
    this.#reused += Number(reused);
  }

  opened(): void {
    this.#opened++;
  }

  connectFailed(): void {
    this.#connectFailures++;
  }

  closed(reason: CloseReason): void {
    this.#closed[reason]++;
  }

  waited(ms: number): void {
    this.#waits++;
    this.#waitMs += ms;
    this.#longestWaitMs = Math.max(this.#longestWaitMs, ms);
  }

  refused(): void {
    this.#refused++;
  }

  snapshot(): Omit<PoolStats, "connections" | "waiting"> {
    return {
      requests: this.#requests,
      reused: this.#reused,
      opened: this.#opened,
      connectFailures: this.#connectFailures,
      closed: { ...this.#closed },
      waits: { count: this.#waits, totalMs: this.#waitMs, maxMs: this.#longestWaitMs },
      refused: this.#refused,
    };
  }
}
