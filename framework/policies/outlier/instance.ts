import { SlidingCounts } from "../breaker/sliding-counts.ts";
import type { Outcome } from "../breaker/state.ts";
import { InFlight } from "./in-flight.ts";
import type { EjectionReason } from "./state.ts";

const BUCKETS = 10;
const [CALLS, FAILURES] = [0, 1];
/**
 * The weight of the newest latency in the mean. It is a mean of logarithms, so that a few calls of a slow method do not
 * move it far, while an instance that has become a hundred times slower stands out after five calls.
 */
const NEWEST_WEIGHT = 0.1;

/** Whether calls go to an instance. */
export type Standing =
  | { readonly kind: "healthy" }
  /** `until` is of the monotonic clock. */
  | {
      readonly kind: "ejected";
      readonly until: number;
      readonly reason: EjectionReason;
      readonly detail: string;
    }
  | { readonly kind: "probation"; succeeded: number };

/** What is known of an instance in its present standing. Each standing begins with a new one, so that nothing old counts. */
export class Evidence {
  readonly standing: Standing;
  readonly inFlight = new InFlight();
  consecutiveFailures = 0;
  /** When the newest call began. Like all times here it is of the monotonic clock, in milliseconds. */
  lastBegan = Number.NEGATIVE_INFINITY;
  lastSuccess = Number.NEGATIVE_INFINITY;

  readonly #windowMs: number;
  readonly #counts: SlidingCounts;
  #latencies = 0;
  #logLatency = 0;
  #lastLatency = Number.NEGATIVE_INFINITY;

  constructor(standing: Standing, windowMs: number) {
    this.standing = standing;
    this.#windowMs = windowMs;
    this.#counts = new SlidingCounts({ windowMs, buckets: BUCKETS, columns: 2 });
  }

  get calls(): number {
    return this.#counts.sum(CALLS);
  }

  get failures(): number {
    return this.#counts.sum(FAILURES);
  }

  /** Drops what is older than the window. */
  forget(now: number): void {
    this.#counts.forget(now);
  }

  count(outcome: Exclude<Outcome, "ignored">, now: number): void {
    this.#counts.add(CALLS, now);
    if (outcome === "failure") {
      this.#counts.add(FAILURES, now);
      this.consecutiveFailures++;
    } else {
      this.consecutiveFailures = 0;
      this.lastSuccess = now;
    }
  }

  addLatency(ms: number, now: number): void {
    if (now - this.#lastLatency > this.#windowMs) {
      this.#latencies = 0;
    }
    this.#latencies++;
    const log = Math.log(Math.max(ms, 0.001));
    // The first ones weigh the same each.
    this.#logLatency += (log - this.#logLatency) * Math.max(NEWEST_WEIGHT, 1 / this.#latencies);
    this.#lastLatency = now;
  }

  /** The mean latency, in milliseconds; undefined when there are fewer than `minimum`, or none within the window. */
  latencyMs(minimum: number, now: number): number | undefined {
    const known = this.#latencies >= Math.max(minimum, 1) && now - this.#lastLatency <= this.#windowMs;
    return known ? Math.exp(this.#logLatency) : undefined;
  }

  /** For how long the n-th oldest call has waited while no later one succeeded; undefined when that is not so. */
  unansweredMs(n: number, now: number): number | undefined {
    const began = this.inFlight.beganAt(n);
    return began === undefined || this.lastSuccess > began ? undefined : now - began;
  }
}

/** An instance. */
export class Instance {
  readonly id: string;
  readonly #windowMs: number;
  evidence: Evidence;
  /** Since when it has its standing: of the wall clock, and of the monotonic one. */
  since: { readonly wall: number; readonly monotonic: number };
  /** How often it was ejected in a row. */
  ejections = 0;
  /** Calls in flight, those that began in an earlier standing included. */
  inFlight = 0;
  lastUsed: number;
  /** The typical latency of its healthy peers, in milliseconds, when they were last compared; undefined: not known. */
  peersMs: number | undefined;

  constructor(id: string, windowMs: number, since: { readonly wall: number; readonly monotonic: number }) {
    this.id = id;
    this.#windowMs = windowMs;
    this.since = since;
    this.lastUsed = since.monotonic;
    this.evidence = new Evidence({ kind: "healthy" }, windowMs);
  }

  get standing(): Standing {
    return this.evidence.standing;
  }

  enter(standing: Standing, since: { readonly wall: number; readonly monotonic: number }): void {
    this.evidence = new Evidence(standing, this.#windowMs);
    this.since = since;
  }
}
