import type { Link } from "./link.ts";
import type { Route } from "./route.ts";

/** How many of the latest outcomes the failure rate is taken over. */
const OUTCOMES = 20;

/** How a request ended: `neutral` says nothing about the connection, such as a call that its caller left. */
export type Outcome = "ok" | "failed" | "neutral";

/**
 * Why a connection takes no more requests and closes after its last one; one that is merely old still may take some when
 * there is no other.
 *
 * - `idle`: it was not used for too long.
 * - `age`: it was open for too long.
 * - `failures`: too many requests failed on it.
 * - `goaway`: the server told it to go.
 * - `capacity`: it was idle, and its place was needed or more were idle than are kept.
 * - `peer`: the server closed it between two requests.
 * - `error`: it broke, or was given up, while a request was running.
 * - `shutdown`: the pool was closed.
 */
export const closeReasons = [
  "idle",
  "age",
  "failures",
  "goaway",
  "capacity",
  "peer",
  "error",
  "shutdown",
] as const;

export type CloseReason = (typeof closeReasons)[number];

/** An open connection as the broker sees it. Times are monotonic milliseconds. */
export class Connection {
  readonly route: Route;
  readonly link: Link;
  readonly openedAt: number;
  idleSince: number;
  active = 0;
  requests = 0;
  failures = 0;
  retired: CloseReason | undefined;
  /** The pool counts it no more. */
  gone = false;
  readonly #outcomes: boolean[] = [];

  constructor(route: Route, link: Link, now: number) {
    this.route = route;
    this.link = link;
    this.openedAt = now;
    this.idleSince = now;
  }

  record(outcome: Outcome): void {
    if (outcome === "neutral") {
      return;
    }
    const failed = outcome === "failed";
    this.failures += Number(failed);
    this.#outcomes.push(failed);
    if (this.#outcomes.length > OUTCOMES) {
      this.#outcomes.shift();
    }
  }

  /** True when more than `threshold` of the latest requests failed and there were at least `minRequests`. */
  fails(threshold: number, minRequests: number): boolean {
    const failed = this.#outcomes.filter(Boolean).length;
    return this.#outcomes.length >= minRequests && failed / this.#outcomes.length > threshold;
  }

  /** How many more requests it can take, whether or not it has been retired. */
  get room(): number {
    return this.link.capacity() - this.active;
  }
}
