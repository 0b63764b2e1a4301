import { type Clock, systemClock } from "../../clock.ts";
import { type DistributiveOmit, reportEvent } from "../report-event.ts";
import { type BreakerOptions, type BreakerSettings, breakerSettings } from "./options.ts";
import { SlidingCounts } from "./sliding-counts.ts";
import type {
  BreakerEvent,
  BreakerPermit,
  BreakerRefusal,
  BreakerSnapshot,
  BreakerState,
  OpenCause,
  Outcome,
} from "./state.ts";

/** Steps in which the window moves on: rates are exact to within a twentieth of the window. */
const BUCKETS = 20;
const [CALLS, FAILURES, SLOW] = [0, 1, 2];
/** While others probe, a caller is told to come back after this time, in milliseconds. */
const PROBING_RETRY_MS = 1_000;
/** The longest text of a failure that is kept, in characters. */
const MAX_TEXT = 300;

/**
 * Keeps calls away from what keeps failing, so that callers get an answer at once and it gets a chance to recover.
 *
 * ```ts
 * const permit = breaker.tryAcquire();
 * if (!permit.allowed) {
 *   return refuse(permit.retryAfterMs);
 * }
 * try {
 *   const answer = await call();
 *   permit.record("success");
 *   return answer;
 * } catch (error) {
 *   permit.record(isTheirFault(error) ? "failure" : "ignored", String(error));
 *   throw error;
 * }
 * ```
 */
export interface Breaker {
  readonly name: string;
  /** Asks for leave to make one call now. Whoever gets it reports how the call ended. */
  tryAcquire(): BreakerPermit | BreakerRefusal;
  /** Refuses every call from now on, until it is reset. */
  isolate(reason?: string): void;
  /** Closes it, whatever its state, and forgets what it has counted towards opening. */
  reset(): void;
  /** The kind of the current state, without making a snapshot. */
  readonly state: BreakerState["kind"];
  snapshot(): BreakerSnapshot;
}

/**
 * Makes a circuit breaker, after Nygard's "Release It!" (2007), with the window of rates and of slow calls that
 * resilience4j has. It owns no timers: time is looked at when calls come.
 *
 * @throws RangeError for options that no breaker can work with
 */
export function createBreaker(options: BreakerOptions = {}): Breaker {
  return new CircuitBreaker(options);
}

/** The state inside: what a permit was given in, and, by identity, whether that is over. Times are monotonic. */
type State =
  | { readonly kind: "closed" }
  | { readonly kind: "open"; readonly until: number; readonly cause: OpenCause }
  | { readonly kind: "half-open"; readonly probing: Set<Permit>; succeeded: number; slow: number }
  | { readonly kind: "isolated"; readonly reason: string };

class Permit implements BreakerPermit {
  readonly allowed = true;
  readonly #breaker: CircuitBreaker;
  readonly grantedIn: State;
  readonly grantedAt: number;
  #reported = false;

  constructor(breaker: CircuitBreaker, grantedIn: State, grantedAt: number) {
    this.#breaker = breaker;
    this.grantedIn = grantedIn;
    this.grantedAt = grantedAt;
  }

  get probe(): boolean {
    return this.grantedIn.kind === "half-open";
  }

  record(outcome: Outcome, failure?: string, durationMs?: number): void {
    if (!this.#reported) {
      this.#reported = true;
      this.#breaker.report(this, outcome, failure, durationMs);
    }
  }
}

class CircuitBreaker implements Breaker {
  readonly name: string;
  readonly #settings: BreakerSettings;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #onEvent: ((event: BreakerEvent) => void) | undefined;
  readonly #window: SlidingCounts;
  readonly #timesCalls: boolean;
  readonly #hasWindow: boolean;

  #state: State = { kind: "closed" };
  #since: number;
  #consecutiveFailures = 0;
  /** How often it has opened since it was last closed. */
  #opensInARow = 0;
  #rejected = 0;
  #timesOpened = 0;
  #late = 0;
  #lastFailure: { readonly text: string; readonly at: number } | undefined;

  constructor(options: BreakerOptions) {
    this.name = options.name ?? "breaker";
    this.#settings = breakerSettings(options);
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#onEvent = options.onEvent;
    this.#window = new SlidingCounts({ windowMs: this.#settings.windowMs, buckets: BUCKETS, columns: 3 });
    this.#timesCalls = Number.isFinite(this.#settings.slowCallMs);
    this.#hasWindow = this.#timesCalls || Number.isFinite(this.#settings.failureRate);
    this.#since = this.#clock.now();
  }

  get state(): BreakerState["kind"] {
    return this.#state.kind;
  }

  tryAcquire(): BreakerPermit | BreakerRefusal {
    const state = this.#state;
    switch (state.kind) {
      case "closed":
        return new Permit(this, state, this.#timesCalls ? this.#clock.monotonic() : 0);
      case "open": {
        const now = this.#clock.monotonic();
        return now < state.until ? this.#refuse("open", state.until - now) : this.#beginProbing(now);
      }
      case "half-open": {
        const now = this.#clock.monotonic();
        this.#expire(state.probing, now);
        if (state.probing.size + state.succeeded >= this.#settings.probes) {
          return this.#refuse("half-open", PROBING_RETRY_MS);
        }
        const permit = new Permit(this, state, now);
        state.probing.add(permit);
        return permit;
      }
      case "isolated":
        return this.#refuse("isolated", undefined);
    }
  }

  /** Takes the result of a call, once for each permit. */
  report(
    permit: Permit,
    outcome: Outcome,
    failure: string | undefined,
    durationMs: number | undefined,
  ): void {
    const state = this.#state;
    if (permit.grantedIn !== state) {
      this.#late++;
      return;
    }
    if (state.kind === "half-open") {
      state.probing.delete(permit);
    }
    if (outcome === "ignored") {
      return;
    }
    const now = this.#hasWindow ? this.#clock.monotonic() : 0;
    const slow = this.#timesCalls && (durationMs ?? now - permit.grantedAt) >= this.#settings.slowCallMs;
    if (outcome === "failure") {
      this.#lastFailure = { text: (failure ?? "").slice(0, MAX_TEXT), at: this.#clock.now() };
    }
    if (state.kind === "half-open") {
      this.#judgeProbe(state, outcome, slow);
    } else {
      this.#count(outcome, slow, now);
    }
  }

  isolate(reason = "isolated by hand"): void {
    const from = this.#state.kind;
    if (from === "isolated") {
      this.#state = { kind: "isolated", reason };
      return;
    }
    this.#enter({ kind: "isolated", reason });
    this.#emit({ kind: "isolated", from, reason });
  }

  reset(): void {
    const from = this.#state.kind;
    this.#close();
    if (from !== "closed") {
      this.#emit({ kind: "closed", from, by: "reset" });
    }
  }

  snapshot(): BreakerSnapshot {
    this.#window.forget(this.#clock.monotonic());
    return {
      name: this.name,
      state: this.#describe(),
      consecutiveFailures: this.#consecutiveFailures,
      window: {
        calls: this.#window.sum(CALLS),
        failures: this.#window.sum(FAILURES),
        slowCalls: this.#window.sum(SLOW),
      },
      rejected: this.#rejected,
      timesOpened: this.#timesOpened,
      late: this.#late,
      lastFailure: this.#lastFailure,
    };
  }

  #count(outcome: "success" | "failure", slow: boolean, now: number): void {
    const { consecutiveFailures, minimumCalls, failureRate, slowCallRate } = this.#settings;
    const window = this.#window;
    const failed = outcome === "failure";
    this.#consecutiveFailures = failed ? this.#consecutiveFailures + 1 : 0;
    if (this.#hasWindow) {
      window.add(CALLS, now);
      if (failed) {
        window.add(FAILURES, now);
      }
      if (slow) {
        window.add(SLOW, now);
      }
    }
    if (this.#consecutiveFailures >= consecutiveFailures) {
      this.#open("closed", "consecutive-failures");
    } else if ((failed || slow) && window.sum(CALLS) >= minimumCalls) {
      if (failed && window.sum(FAILURES) / window.sum(CALLS) >= failureRate) {
        this.#open("closed", "failure-rate");
      } else if (slow && window.sum(SLOW) / window.sum(CALLS) >= slowCallRate) {
        this.#open("closed", "slow-call-rate");
      }
    }
  }

  #judgeProbe(state: State & { kind: "half-open" }, outcome: "success" | "failure", slow: boolean): void {
    if (outcome === "failure") {
      this.#open("half-open", "probe-failed");
      return;
    }
    state.succeeded++;
    state.slow += slow ? 1 : 0;
    if (state.succeeded < this.#settings.probes) {
      return;
    }
    if (state.slow / state.succeeded >= this.#settings.slowCallRate) {
      this.#open("half-open", "probes-slow");
      return;
    }
    this.#close();
    this.#emit({ kind: "closed", from: "half-open", by: "probes" });
  }

  #open(from: "closed" | "half-open", cause: OpenCause): void {
    const { openMs, backoffFactor, maxOpenMs, jitter } = this.#settings;
    const grown = Math.min(openMs * backoffFactor ** this.#opensInARow, maxOpenMs);
    const lasts = grown * (1 + jitter * this.#random());
    this.#opensInARow++;
    this.#timesOpened++;
    this.#enter({ kind: "open", until: this.#clock.monotonic() + lasts, cause });
    this.#emit({ kind: "opened", from, cause, openMs: lasts, lastFailure: this.#lastFailure?.text });
  }

  #beginProbing(now: number): Permit {
    const state: State = { kind: "half-open", probing: new Set(), succeeded: 0, slow: 0 };
    const permit = new Permit(this, state, now);
    state.probing.add(permit);
    this.#enter(state);
    this.#emit({ kind: "half-opened" });
    return permit;
  }

  /** A closed breaker begins with nothing counted. */
  #close(): void {
    this.#opensInARow = 0;
    this.#consecutiveFailures = 0;
    this.#window.clear();
    this.#enter({ kind: "closed" });
  }

  /** Every state is a new object, so that what was granted in an earlier one is late. */
  #enter(state: State): void {
    this.#state = state;
    this.#since = this.#clock.now();
  }

  /** Gives the places of probes that are overdue to others. */
  #expire(probing: Set<Permit>, now: number): void {
    for (const probe of probing) {
      if (now - probe.grantedAt >= this.#settings.probeTimeoutMs) {
        probing.delete(probe);
      }
    }
  }

  #refuse(state: BreakerRefusal["state"], retryAfterMs: number | undefined): BreakerRefusal {
    this.#rejected++;
    return { allowed: false, name: this.name, state, retryAfterMs };
  }

  #describe(): BreakerState {
    const state = this.#state;
    const since = this.#since;
    switch (state.kind) {
      case "closed":
        return { kind: "closed", since };
      case "open": {
        const left = state.until - this.#clock.monotonic();
        return { kind: "open", since, retryAt: this.#clock.now() + left, cause: state.cause };
      }
      case "half-open":
        return { kind: "half-open", since, probing: state.probing.size, succeeded: state.succeeded };
      case "isolated":
        return { kind: "isolated", since, reason: state.reason };
    }
  }

  #emit(event: DistributiveOmit<BreakerEvent, "name" | "at">): void {
    reportEvent(this.#onEvent, { ...event, name: this.name, at: this.#clock.now() });
  }
}
