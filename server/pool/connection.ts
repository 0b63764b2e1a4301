import type { Link } from "./link.ts";
import type { Route } from "./route.ts";

/** How many of the latest outcomes the failure rate is taken over. */
const OUTCOMES = 20;

/** How a request ended: `neutral` says nothing about the connection, such as a call that its caller left. */
export type Outcome = "ok" | "failed" | "neutral";

/** Why a connection takes no more requests; one that is merely old still may when there is no other. */
export type Retirement = "age" | "failures" | "goaway" | "closed";

/** An open connection as the broker sees it. Times are monotonic milliseconds. */
export class Connection {
  readonly route: Route;
  readonly link: Link;
  readonly openedAt: number;
  idleSince: number;
  active = 0;
  requests = 0;
  failures = 0;
  retired: Retirement | undefined;
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
