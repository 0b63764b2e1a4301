import { type Clock, systemClock } from "../../clock.ts";
import { demandAtLeast } from "../demand.ts";
import { reportEvent } from "../report-event.ts";
import { createBaselines } from "./latency-baselines.ts";

export interface AdaptiveConcurrencyOptions {
  /** The limit at start. Default: 100. */
  readonly initial?: number;
  /** The limit never goes below; so many are assumed to be no burden at any time. Default: 20. */
  readonly min?: number;
  /** The limit never goes above. Default: 1,000. */
  readonly max?: number;
  /** How many times as long as without load work may take before the limit falls, 1 or more. Default: 1.5 (Netflix). */
  readonly tolerance?: number;
  /** How far the limit follows what a window says, above 0 and up to 1. Default: 0.5. */
  readonly smoothing?: number;
  /** The limit is computed anew after so many milliseconds, or after the usual latency if that is longer. Default: 250. */
  readonly windowMs?: number;
  /** Shorter latencies count as this one, in milliseconds: below, timers and garbage collection are most of it. Default: 5. */
  readonly minLatencyMs?: number;
  /**
   * How long the limit may be exhausted all the time before the latency without load is measured anew, for which the limit
   * falls to `min` for a moment. In milliseconds. Default: 60,000 (Envoy).
   */
  readonly probeIntervalMs?: number;
  readonly clock?: Clock;
  readonly onEvent?: (event: AdaptiveConcurrencyEvent) => void;
}

export type AdaptiveConcurrencyEvent =
  | { readonly kind: "limit-changed"; readonly from: number; readonly to: number; readonly slowdown: number }
  /** The limit falls to `min`, to learn how long work takes without load. */
  | { readonly kind: "probe-started" }
  /** It is known again, from so many samples; the limit is what it was before. */
  | { readonly kind: "probe-finished"; readonly samples: number };

/** How work ended. */
export type WorkOutcome =
  /** It was done: its latency counts. */
  | "done"
  /** It was cut off, by a deadline or because nobody waits any more: it would have taken at least so long. */
  | "cut-off"
  /** It was not really done, such as a mistake of the caller: its latency says nothing. */
  | "ignored";

/** A place among the work that is being done. */
export interface Permit {
  /** Gives the place back. Only the first call counts. */
  release(outcome: WorkOutcome): void;
}

export interface AdaptiveConcurrency {
  /**
   * Takes a place if there is one. There is no queue: what cannot be done now is refused now.
   *
   * @param kind names work that takes a similar time, such as an RPC method. Latencies are compared within a kind, so that
   *   it does no harm when there is suddenly more of a slow kind. Default: one kind.
   */
  tryAcquire(kind?: string): Permit | undefined;
  /** Whether `tryAcquire` would be refused now. Counts as a refusal if so. */
  refuses(): boolean;
  stats(): AdaptiveConcurrencyStats;
}

export interface AdaptiveConcurrencyStats {
  /** How much may be done at once now. */
  readonly limit: number;
  readonly inFlight: number;
  readonly admitted: number;
  readonly refused: number;
  /** How many times as long as without load work took in the latest window; undefined: not known. */
  readonly slowdown: number | undefined;
  /** Whether the latency without load is being measured. */
  readonly probing: boolean;
}

/** Windows with fewer samples are prolonged (Netflix). */
const WINDOW_SAMPLES = 10;
/** So many samples end a probe (Envoy). */
const PROBE_SAMPLES = 50;
/** A window says at most so much at once (Netflix): half of the limit goes. */
const MIN_GRADIENT = 0.5;
/** The longest window and the longest probe, in milliseconds. */
const MAX_WINDOW_MS = 10_000;
/** A probe that gets no samples ends after the longest of this and so many times the latency before it. */
const MIN_PROBE_MS = 1_000;
const PROBE_LATENCIES = 4;
/** Windows at the lower bound of the limit after which their latency counts as that without load (Envoy). */
const WINDOWS_AT_MIN = 5;

interface Work {
  readonly kind: string;
  readonly started: number;
}

/**
 * The first pieces of work that start in a probe are its samples, however long they take: of those that are done first, it
 * would only learn how long quick work takes.
 */
interface Probe {
  readonly ends: number;
  /** How many samples have started. */
  begun: number;
  /** Those that are not done yet. */
  readonly running: Set<Work>;
}

/**
 * A limit on concurrent work that finds itself, after Netflix's Gradient2 (https://github.com/Netflix/concurrency-limits)
 * with the measuring of Envoy's adaptive concurrency filter. After each window:
 *
 *     gradient = clamp(tolerance / slowdown, 0.5, 1)
 *     limit    = (1 - smoothing) × limit + smoothing × (gradient × limit + √limit)
 *
 * `slowdown` is how many times as long as without load work took (geometric mean), √limit the queue that is allowed, and
 * what lets the limit grow while nothing gets slower.
 *
 * - The limit changes only in windows in which at least half of it was used: light traffic says nothing about it.
 * - The latency without load, one for each kind of work, is learned in such light windows, and downwards in any other.
 *   Upwards it is not, else persistent overload would become what is usual. When there has been no light window for a while
 *   a probe takes its place: the limit falls to `min` until the first 50 pieces of work that start then are done.
 * - When the limit has been at `min` for 5 windows, work has become slower by itself: that is the new usual.
 */
export function createAdaptiveConcurrency(options: AdaptiveConcurrencyOptions = {}): AdaptiveConcurrency {
  const { initial = 100, min = 20, max = 1_000, tolerance = 1.5, smoothing = 0.5, windowMs = 250 } = options;
  const { minLatencyMs = 5, probeIntervalMs = 60_000, clock = systemClock, onEvent } = options;
  if (!(min >= 1 && min <= initial && initial <= max)) {
    throw new RangeError("a concurrency limit needs 1 <= min <= initial <= max");
  }
  demandAtLeast("a concurrency limit", 1, { tolerance });
  demandAtLeast("a concurrency limit", 0, { windowMs, probeIntervalMs });
  if (!(smoothing > 0 && smoothing <= 1 && minLatencyMs > 0)) {
    throw new RangeError("a concurrency limit needs smoothing above 0, up to 1, and minLatencyMs above 0");
  }
  const baselines = createBaselines();
  let limit = initial;
  let inFlight = 0;
  let admitted = 0;
  let refused = 0;
  let slowdown: number | undefined;

  let windowEnds = clock.monotonic() + windowMs;
  let peak = 0;
  /** Since when there is no measure of the latency without load; undefined: there has never been one. */
  let measuredAt: number | undefined;
  let windowsAtMin = 0;
  /** The probe that is under way. */
  let probe: Probe | undefined;

  const allowed = () => (probe === undefined ? Math.floor(limit) : min);

  function release(work: Work, outcome: WorkOutcome): void {
    const now = clock.monotonic();
    inFlight -= 1;
    if (probe === undefined) {
      count(work, outcome, now);
      if (now >= windowEnds && baselines.samples >= WINDOW_SAMPLES) {
        endWindow(now);
      }
      return;
    }
    // What started before the probe has been slowed down by what was there then.
    if (probe.running.delete(work)) {
      if (outcome === "ignored") {
        probe.begun -= 1;
      }
      count(work, outcome, now);
    }
    if (now >= probe.ends || (probe.begun >= PROBE_SAMPLES && probe.running.size === 0)) {
      endProbe(probe, now);
    }
  }

  function count({ kind, started }: Work, outcome: WorkOutcome, now: number): void {
    if (outcome !== "ignored") {
      const latency = Math.log(Math.max(now - started, minLatencyMs));
      if (outcome === "done") {
        baselines.add(kind, latency);
      } else {
        baselines.addAtLeast(kind, latency);
      }
    }
  }

  function endWindow(now: number): void {
    slowdown = Math.exp(baselines.slowdown());
    const light = peak < limit / 2;
    windowsAtMin = !light && limit <= min ? windowsAtMin + 1 : 0;
    const unburdened = light || windowsAtMin >= WINDOWS_AT_MIN;
    if (unburdened) {
      measuredAt = now;
      baselines.learn(windowsAtMin >= WINDOWS_AT_MIN ? "replace" : "follow");
      windowsAtMin = 0;
    } else if (measuredAt === undefined || now - measuredAt >= probeIntervalMs) {
      beginProbe(now);
      return;
    } else {
      baselines.learn("downwards");
    }
    if (!light) {
      const gradient = Math.min(1, Math.max(MIN_GRADIENT, tolerance / slowdown));
      changeLimit(limit * (1 - smoothing) + (limit * gradient + Math.sqrt(limit)) * smoothing);
    }
    beginWindow(now);
  }

  function beginWindow(now: number): void {
    // As long as work takes, so that a window sees what the one before has changed.
    windowEnds = now + Math.min(MAX_WINDOW_MS, Math.max(windowMs, currentLatency()));
    peak = inFlight;
    baselines.forgetSamples();
  }

  const currentLatency = () => (baselines.samples > 0 ? Math.exp(baselines.mean()) : 0);

  function changeLimit(to: number): void {
    const from = Math.floor(limit);
    limit = Math.min(max, Math.max(min, to));
    if (Math.floor(limit) !== from) {
      reportEvent(onEvent, { kind: "limit-changed", from, to: Math.floor(limit), slowdown: slowdown ?? 1 });
    }
  }

  function beginProbe(now: number): void {
    const patience = Math.max(MIN_PROBE_MS, PROBE_LATENCIES * currentLatency());
    probe = { ends: now + Math.min(MAX_WINDOW_MS, patience), begun: 0, running: new Set() };
    baselines.forgetSamples();
    reportEvent(onEvent, { kind: "probe-started" });
  }

  function endProbe({ running }: Probe, now: number): void {
    probe = undefined;
    for (const work of running) {
      count(work, "cut-off", now);
    }
    measuredAt = now;
    baselines.learn("replace");
    reportEvent(onEvent, { kind: "probe-finished", samples: baselines.samples });
    beginWindow(now);
  }

  /** Whether there is no place. Work that never ends must not keep a probe from ending. */
  function full(): boolean {
    if (inFlight < allowed()) {
      return false;
    }
    const now = clock.monotonic();
    if (probe !== undefined && now >= probe.ends) {
      endProbe(probe, now);
      return full();
    }
    refused += 1;
    return true;
  }

  return {
    tryAcquire(kind = "") {
      if (full()) {
        return undefined;
      }
      admitted += 1;
      inFlight += 1;
      peak = Math.max(peak, inFlight);
      const work = { kind, started: clock.monotonic() };
      if (probe !== undefined && probe.begun < PROBE_SAMPLES) {
        probe.begun += 1;
        probe.running.add(work);
      }
      let held = true;
      return {
        release(outcome) {
          if (held) {
            held = false;
            release(work, outcome);
          }
        },
      };
    },
    refuses: full,
    stats: () => ({ limit: allowed(), inFlight, admitted, refused, slowdown, probing: probe !== undefined }),
  };
}
