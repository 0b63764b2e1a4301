import { type Clock, systemClock } from "../../clock.ts";
import type { Outcome } from "../breaker/state.ts";
import { type DistributiveOmit, reportEvent } from "../report-event.ts";
import type { Flight } from "./in-flight.ts";
import { type Evidence, Instance } from "./instance.ts";
import { type OutlierOptions, type OutlierSettings, outlierSettings } from "./options.ts";
import type { EjectionReason, InstanceCall, InstanceSnapshot, InstanceState, OutlierEvent } from "./state.ts";
import { medianOfOthers, outlyingRate } from "./statistics.ts";

/** While it is not known what is long for a call, a trial call gives up its place after this time, in milliseconds. */
const TRIAL_MS = 30_000;

/**
 * Finds the instances of one service that do worse than their peers, and keeps calls away from them for a while.
 *
 * ```ts
 * const [chosen] = pick(detector.eligible(instances, ({ id }) => id));
 * const call = detector.begin(chosen.id);
 * try {
 *   const answer = await send(chosen);
 *   call.end("success");
 * } catch (error) {
 *   call.end(outcomeOf(error));
 * }
 * ```
 */
export interface OutlierDetector {
  /**
   * The candidates that may get the next call, in their order. Never empty unless `candidates` is: when all are ejected,
   * all are returned, since a bad chance is better than none. Of an instance on probation, the call that follows must be
   * begun before the next question.
   *
   * @param idOf names a candidate; default: itself, as a text
   */
  eligible<T>(candidates: readonly T[], idOf?: (candidate: T) => string): readonly T[];
  /** A call to an instance begins. While it is in flight, its age is evidence: a hanging instance never answers. */
  begin(instance: string): InstanceCall;
  /** For calls whose begin was not reported: one has ended. */
  record(instance: string, outcome: Outcome, durationMs: number): void;
  /** Says which instances there are: others are forgotten. Without that, instances are known by their calls. */
  setInstances(instances: Iterable<string>): void;
  /** Lets an instance back in, whatever is known of it. False: it is not known. */
  reset(instance: string): boolean;
  /** All known instances: the ejected first, then those on probation, then by name. */
  list(): readonly InstanceSnapshot[];
  /** How often an outlier was left in, since too many others were ejected. */
  readonly spared: number;
}

/**
 * Makes an outlier detector for the instances of one service, after Envoy's outlier detection, with two additions:
 * instances that answer many times slower than their peers, and instances that do not answer at all. It owns no timers:
 * peers are compared when calls come.
 *
 * An instance is ejected when
 * - `consecutiveFailures` calls have failed in a row;
 * - its success rate is an outlier among its peers (see `outlyingRate`);
 * - its mean latency is `latencyFactor` times the median of its peers';
 * - `hangingCalls` calls have been unanswered for `hangingFactor` times the median latency of its peers, and no later one
 *   was answered. Without peers that answer, nobody hangs: what is slow for all is not an instance's fault.
 *
 * It returns on probation: one call at a time, until `probationCalls` were answered well.
 *
 * @throws RangeError for options that cannot be worked with
 */
export function createOutlierDetector(options: OutlierOptions = {}): OutlierDetector {
  return new Detector(options);
}

class Call implements InstanceCall, Flight {
  readonly #ended: (call: Call, outcome: Outcome, durationMs: number | undefined) => void;
  readonly instance: Instance;
  readonly evidence: Evidence;
  readonly began: number;
  older: Flight | undefined;
  newer: Flight | undefined;
  tracked = false;
  #over = false;

  constructor(
    instance: Instance,
    began: number,
    ended: (call: Call, outcome: Outcome, durationMs: number | undefined) => void,
  ) {
    this.instance = instance;
    this.evidence = instance.evidence;
    this.began = began;
    this.#ended = ended;
  }

  end(outcome: Outcome, durationMs?: number): void {
    if (!this.#over) {
      this.#over = true;
      this.#ended(this, outcome, durationMs);
    }
  }
}

class Detector implements OutlierDetector {
  readonly #settings: OutlierSettings;
  readonly #clock: Clock;
  readonly #onEvent: ((event: OutlierEvent) => void) | undefined;
  readonly #instances = new Map<string, Instance>();
  /** Instances that are not healthy, so that nothing is filtered as long as there are none. */
  readonly #away = new Set<Instance>();
  #nextComparison = Number.NEGATIVE_INFINITY;
  #spared = 0;
  /** It was said which instances there are. */
  #declared = false;

  constructor(options: OutlierOptions) {
    this.#settings = outlierSettings(options);
    this.#clock = options.clock ?? systemClock;
    this.#onEvent = options.onEvent;
  }

  get spared(): number {
    return this.#spared;
  }

  eligible<T>(candidates: readonly T[], idOf: (candidate: T) => string = String): readonly T[] {
    const now = this.#tick();
    if (this.#away.size === 0) {
      return candidates;
    }
    const eligible = candidates.filter((candidate) => {
      const instance = this.#instances.get(idOf(candidate));
      return instance === undefined || this.#mayCall(instance, now);
    });
    return eligible.length === 0 ? candidates : eligible;
  }

  begin(id: string): InstanceCall {
    const now = this.#tick();
    const instance = this.#get(id, now);
    const call = new Call(instance, now, this.#ended);
    instance.inFlight++;
    call.tracked = call.evidence.inFlight.add(call);
    call.evidence.lastBegan = now;
    return call;
  }

  record(id: string, outcome: Outcome, durationMs: number): void {
    const now = this.#tick();
    this.#take(this.#get(id, now), outcome, durationMs, now);
  }

  setInstances(ids: Iterable<string>): void {
    this.#declared = true;
    const now = this.#clock.monotonic();
    const present = new Set(ids);
    for (const instance of this.#instances.values()) {
      if (!present.has(instance.id)) {
        this.#forget(instance);
      }
    }
    for (const id of present) {
      this.#get(id, now);
    }
  }

  reset(id: string): boolean {
    const instance = this.#instances.get(id);
    if (instance === undefined) {
      return false;
    }
    instance.ejections = 0;
    this.#return(instance, "reset");
    return true;
  }

  list(): readonly InstanceSnapshot[] {
    const now = this.#tick();
    const order = { ejected: 0, probation: 1, healthy: 2 };
    return [...this.#instances.values()]
      .map((instance) => this.#describe(instance, now))
      .sort(
        (one, other) =>
          order[one.state.kind] - order[other.state.kind] || (one.instance < other.instance ? -1 : 1),
      );
  }

  readonly #ended = (call: Call, outcome: Outcome, durationMs: number | undefined): void => {
    const now = this.#clock.monotonic();
    const { instance, evidence } = call;
    instance.inFlight--;
    if (call.tracked) {
      evidence.inFlight.remove(call);
    }
    // What began before the instance was ejected says nothing about it now.
    if (evidence === instance.evidence) {
      this.#take(instance, outcome, durationMs ?? now - call.began, now);
    }
  };

  /** Takes the end of a call, and judges what one call can tell. */
  #take(instance: Instance, outcome: Outcome, durationMs: number, now: number): void {
    const { evidence, standing } = instance;
    instance.lastUsed = now;
    const { peersMs } = instance;
    const slow = this.#isSlow(durationMs, peersMs);
    // A call that was given up would have taken at least as long: that counts when it was long already.
    if (outcome === "success" || slow) {
      evidence.addLatency(durationMs, now);
    }
    if (outcome === "ignored") {
      return;
    }
    evidence.count(outcome, now);
    switch (standing.kind) {
      case "healthy":
        if (evidence.consecutiveFailures >= this.#settings.consecutiveFailures) {
          this.#eject(
            instance,
            "consecutive-failures",
            `${evidence.consecutiveFailures} calls failed in a row`,
          );
        }
        return;
      case "probation":
        if (outcome === "failure") {
          this.#eject(instance, "probation-failed", "a call failed during probation");
        } else if (slow) {
          this.#eject(instance, "latency", `${aboutMs(durationMs)} where peers take ${aboutMs(peersMs)}`);
        } else if (++standing.succeeded >= this.#settings.probationCalls) {
          this.#return(instance, "probation");
        }
        return;
      case "ejected":
        // Calls that go there all the same, since nothing else is left, do not shorten or lengthen it.
        return;
    }
  }

  /** Moves things on with time. @returns the time */
  #tick(): number {
    const now = this.#clock.monotonic();
    if (now >= this.#nextComparison) {
      this.#nextComparison = now + this.#settings.intervalMs;
      for (const instance of this.#instances.values()) {
        this.#age(instance, now);
      }
      this.#compare(now);
    }
    return now;
  }

  #age(instance: Instance, now: number): void {
    instance.evidence.forget(now);
    if (instance.standing.kind === "ejected" && now >= instance.standing.until) {
      instance.enter({ kind: "probation", succeeded: 0 }, this.#times());
      this.#emit({ kind: "probation", instance: instance.id });
    }
    const unused =
      !this.#declared &&
      instance.inFlight === 0 &&
      instance.standing.kind !== "ejected" &&
      now - instance.lastUsed >= this.#settings.forgetAfterMs;
    if (unused) {
      this.#forget(instance);
    }
  }

  /** Judges what only shows beside the peers. */
  #compare(now: number): void {
    const { minimumLatencies, minimumCalls, minimumInstances, successRateFactor, successRateGap } =
      this.#settings;
    const healthy = [...this.#instances.values()].filter(({ standing }) => standing.kind === "healthy");
    const latencies = Float64Array.from(
      healthy.flatMap(({ evidence }) => evidence.latencyMs(minimumLatencies, now) ?? []),
    ).sort();
    for (const instance of this.#instances.values()) {
      instance.peersMs = this.#typicalLatency(instance, latencies, now);
    }

    const rates = Float64Array.from(
      healthy.filter(({ evidence }) => evidence.calls >= minimumCalls),
      ({ evidence }) => successRate(evidence),
    );
    const threshold =
      rates.length >= minimumInstances
        ? outlyingRate(rates, successRateFactor, successRateGap)
        : Number.NEGATIVE_INFINITY;
    // The worst first: there may not be room for all.
    healthy.sort((one, other) => successRate(one.evidence) - successRate(other.evidence));
    for (const instance of [...this.#away, ...healthy]) {
      this.#compareOne(instance, threshold, now);
    }
  }

  #compareOne(instance: Instance, threshold: number, now: number): void {
    const { minimumLatencies, minimumCalls, hangingCalls } = this.#settings;
    const { evidence, standing, peersMs } = instance;
    if (standing.kind === "ejected") {
      return;
    }
    const waitedMs = evidence.unansweredMs(standing.kind === "probation" ? 1 : hangingCalls, now);
    if (waitedMs !== undefined && waitedMs >= this.#hangingMs(peersMs)) {
      this.#eject(
        instance,
        "hanging",
        `no answer for ${aboutMs(waitedMs)} where peers take ${aboutMs(peersMs)}`,
      );
      return;
    }
    if (standing.kind === "probation") {
      return;
    }
    const rate = successRate(evidence);
    if (evidence.calls >= minimumCalls && rate < threshold) {
      this.#eject(
        instance,
        "success-rate",
        `${percent(rate)} of ${evidence.calls} calls succeeded where peers reach at least ${percent(threshold)}`,
      );
      return;
    }
    const ownMs = evidence.latencyMs(minimumLatencies, now);
    if (ownMs !== undefined && this.#isSlow(ownMs, peersMs)) {
      this.#eject(instance, "latency", `${aboutMs(ownMs)} where peers take ${aboutMs(peersMs)}`);
    }
  }

  /** The median latency of an instance's healthy peers; undefined when none is known. */
  #typicalLatency(
    { standing, evidence }: Instance,
    latencies: Float64Array,
    now: number,
  ): number | undefined {
    const own =
      standing.kind === "healthy" ? evidence.latencyMs(this.#settings.minimumLatencies, now) : undefined;
    return medianOfOthers(latencies, own);
  }

  #isSlow(ms: number, peersMs: number | undefined): boolean {
    const { latencyFactor, latencyGapMs } = this.#settings;
    return peersMs !== undefined && ms >= peersMs * latencyFactor && ms >= peersMs + latencyGapMs;
  }

  #hangingMs(peersMs: number | undefined): number {
    const { hangingFactor, hangingMs } = this.#settings;
    return peersMs === undefined ? Number.POSITIVE_INFINITY : Math.max(peersMs * hangingFactor, hangingMs);
  }

  #mayCall(instance: Instance, now: number): boolean {
    switch (instance.standing.kind) {
      case "healthy":
        return true;
      case "ejected":
        return false;
      case "probation": {
        const { inFlight, lastBegan } = instance.evidence;
        return inFlight.size === 0 || now - lastBegan >= TRIAL_MS;
      }
    }
  }

  #eject(instance: Instance, reason: EjectionReason, detail: string): void {
    const { maxEjectedPercent, ejectionTimeMs, maxEjectionTimeMs } = this.#settings;
    const known = this.#instances.size;
    const most = Math.min(Math.floor((known * maxEjectedPercent) / 100), known - 1);
    if (!this.#away.has(instance) && this.#away.size >= most) {
      this.#spared++;
      return;
    }
    const since = this.#times();
    const wellFor = instance.standing.kind === "healthy" ? since.monotonic - instance.since.monotonic : 0;
    instance.ejections = Math.max(0, instance.ejections - Math.floor(wellFor / ejectionTimeMs)) + 1;
    const forMs = Math.min(ejectionTimeMs * instance.ejections, maxEjectionTimeMs);
    instance.enter({ kind: "ejected", until: since.monotonic + forMs, reason, detail }, since);
    this.#away.add(instance);
    const { id, ejections } = instance;
    this.#emit({ kind: "ejected", instance: id, reason, detail, ejections, forMs });
  }

  #return(instance: Instance, by: "probation" | "reset"): void {
    const wasAway = this.#away.delete(instance);
    instance.enter({ kind: "healthy" }, this.#times());
    if (wasAway) {
      this.#emit({ kind: "returned", instance: instance.id, by });
    }
  }

  #get(id: string, now: number): Instance {
    const found = this.#instances.get(id);
    if (found !== undefined) {
      found.lastUsed = now;
      return found;
    }
    if (this.#instances.size >= this.#settings.maxInstances) {
      this.#forget(this.#leastUsed());
    }
    const instance = new Instance(id, this.#settings.windowMs, this.#times());
    this.#instances.set(id, instance);
    return instance;
  }

  /** The healthy instance that was not used for the longest time, or if there is none, any. */
  #leastUsed(): Instance | undefined {
    let least: Instance | undefined;
    for (const instance of this.#instances.values()) {
      const better =
        least === undefined ||
        (this.#away.has(least) && !this.#away.has(instance)) ||
        (this.#away.has(least) === this.#away.has(instance) && instance.lastUsed < least.lastUsed);
      if (better) {
        least = instance;
      }
    }
    return least;
  }

  #forget(instance: Instance | undefined): void {
    if (instance !== undefined) {
      this.#instances.delete(instance.id);
      this.#away.delete(instance);
    }
  }

  #describe(instance: Instance, now: number): InstanceSnapshot {
    const { id, evidence, ejections, inFlight } = instance;
    const { oldest } = evidence.inFlight;
    return {
      instance: id,
      state: this.#describeState(instance, now),
      ejections,
      consecutiveFailures: evidence.consecutiveFailures,
      window: { calls: evidence.calls, failures: evidence.failures },
      latencyMs: evidence.latencyMs(this.#settings.minimumLatencies, now),
      inFlight,
      oldestMs: oldest === undefined ? undefined : now - oldest.began,
    };
  }

  #describeState({ standing, since }: Instance, now: number): InstanceState {
    switch (standing.kind) {
      case "healthy":
        return { kind: "healthy" };
      case "ejected":
        return {
          kind: "ejected",
          since: since.wall,
          returnAt: this.#clock.now() + standing.until - now,
          reason: standing.reason,
          detail: standing.detail,
        };
      case "probation":
        return { kind: "probation", since: since.wall, succeeded: standing.succeeded };
    }
  }

  #times(): { readonly wall: number; readonly monotonic: number } {
    return { wall: this.#clock.now(), monotonic: this.#clock.monotonic() };
  }

  #emit(event: DistributiveOmit<OutlierEvent, "at">): void {
    reportEvent(this.#onEvent, { ...event, at: this.#clock.now() });
  }
}

function successRate({ calls, failures }: Evidence): number {
  return calls === 0 ? 1 : 1 - failures / calls;
}

function aboutMs(ms: number | undefined): string {
  return ms === undefined ? "no known time" : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
