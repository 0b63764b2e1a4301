import { type Clock, systemClock } from "../../clock.ts";
import { demandAtLeast } from "../demand.ts";
import { reportEvent } from "../report-event.ts";

export interface CoalescerOptions {
  /** Work that has been running for longer is not joined any more: the next caller starts anew. Milliseconds, default 60,000. */
  readonly windowMs?: number;
  /** How many keys are remembered at once. Work beyond runs for its caller alone. Default 1,000. */
  readonly maxInFlight?: number;
  /**
   * Whether a failure may stem from the end of the caller whose work it was, such as a deadline that was sent along.
   * Those whose deadlines are later by `outliveMs` then get the work done once more, by the first of them. Default, and
   * where it throws: never.
   */
  readonly mayOutlive?: (error: unknown) => boolean;
  /** Callers with the same timeout that come one after the other must not each get a try. Milliseconds, default 50. */
  readonly outliveMs?: number;
  readonly clock?: Clock;
  readonly onEvent?: (event: CoalescerEvent) => void;
}

export type CoalescerEvent =
  /** Work begins. */
  | { readonly kind: "led"; readonly key: string }
  /** A caller shares work; `present` counts it. */
  | { readonly kind: "joined"; readonly key: string; readonly present: number }
  /** Work begins that nobody can join, because too many keys are in flight. */
  | { readonly kind: "overflowed"; readonly key: string }
  /** The last caller has left. */
  | { readonly kind: "cancelled"; readonly key: string; readonly reason: unknown }
  /** Work begins again for `present` callers who have more time than the one whose work failed. */
  | { readonly kind: "repeated"; readonly key: string; readonly present: number };

/** Counters since the start, but for `inFlight`. */
export interface CoalescerStats {
  /** Calls that started work that others could join. */
  readonly led: number;
  /** Calls that shared the work of another one. */
  readonly joined: number;
  /** The share of calls that caused no work of their own, from 0 to 1. */
  readonly coalesceRate: number;
  /** Work that runs now, shared or not. */
  readonly inFlight: number;
  /** Calls that ran alone because too many keys were in flight. */
  readonly overflowed: number;
  /** Work that was cancelled because everyone had left. */
  readonly cancelled: number;
  /** Work that began again without the caller whose end had failed it. */
  readonly repeated: number;
  /** The most callers that ever waited for the same work. */
  readonly maxPresent: number;
}

/** What work may know about those who wait for it. */
export interface Flight {
  /**
   * The latest deadline among those present, on the callers' scale; undefined when one of them has none. It
   * moves out as callers join. Nothing has to enforce it: each caller leaves by its own signal, and the work is
   * cancelled when the last one does.
   */
  readonly deadline: number | undefined;
}

export type Work<T> = (signal: AbortSignal, flight: Flight) => Promise<T>;

export interface Caller<T> {
  /** The caller leaves when it is aborted, with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** When the caller is going to leave, in milliseconds on a scale that all callers share. The signal enforces it. */
  readonly deadline?: number | undefined;
  /** Makes what a caller gets that shares another one's work. Default: all get the same object. */
  readonly copy?: ((result: T) => T) | undefined;
  /** As `copy`, for failures. */
  readonly copyError?: ((error: unknown) => unknown) | undefined;
}

export interface Coalescer<T> {
  /**
   * Does `work`, or shares the work that is being done for the same key.
   *
   * - The work's signal is its own: it is aborted only when everyone has left, with the reason of the last. Who comes
   *   after that starts anew.
   * - A failure goes to everyone present and is not kept, nor is a result: nothing is remembered once work is over.
   * - The caller that started the work gets its result as it is, all others through `copy`. Copies are made before
   *   anyone gets anything, so nobody sees what another caller makes of its own.
   */
  run(key: string, work: Work<T>, caller?: Caller<T>): Promise<T>;
  stats(): CoalescerStats;
}

interface Participant<T> {
  readonly caller: Caller<T>;
  readonly work: Work<T>;
  readonly resolve: (result: T) => void;
  readonly reject: (error: unknown) => void;
  readonly leave: (() => void) | undefined;
}

/** Work in progress: everyone present, in the order in which they came. */
interface SharedFlight<T> extends Flight {
  readonly key: string;
  readonly present: Set<Participant<T>>;
  startedAt: number;
  leader: Participant<T>;
  abort: AbortController;
}

/**
 * Shares work among callers that want the same at the same time ("single flight"), without letting any of them harm
 * the others. Memory: what is in flight, of which at most `maxInFlight` keys can be joined.
 *
 * The idea is Go's https://pkg.go.dev/golang.org/x/sync/singleflight; it has neither departures nor deadlines.
 */
export function createCoalescer<T>(options: CoalescerOptions = {}): Coalescer<T> {
  const { windowMs = 60_000, maxInFlight = 1_000, outliveMs = 50, mayOutlive = () => false } = options;
  demandAtLeast("a coalescer", 0, { windowMs, maxInFlight, outliveMs });
  const clock = options.clock ?? systemClock;
  const flights = new Map<string, SharedFlight<T>>();
  let inFlight = 0;
  const counts = { led: 0, joined: 0, overflowed: 0, cancelled: 0, repeated: 0, maxPresent: 0 };

  function emit(event: CoalescerEvent): void {
    reportEvent(options.onEvent, event);
  }

  function run(key: string, work: Work<T>, caller: Caller<T> = {}): Promise<T> {
    const { signal } = caller;
    if (signal?.aborted) {
      return Promise.reject(signal.reason);
    }
    return new Promise((resolve, reject) => {
      const found = flights.get(key);
      const current =
        found !== undefined && clock.monotonic() - found.startedAt <= windowMs ? found : undefined;
      let flight: SharedFlight<T> | undefined;
      const leave = signal && (() => flight && depart(flight, participant, signal.reason));
      const participant: Participant<T> = { caller, work, resolve, reject, leave };
      if (leave !== undefined) {
        signal?.addEventListener("abort", leave, { once: true });
      }
      if (current !== undefined) {
        flight = current;
        join(flight, participant);
      } else {
        flight = lead(key, participant, found !== undefined);
        if (signal?.aborted) {
          // A listener has ended the call when it was told that its work begins.
          depart(flight, participant, signal.reason);
        }
      }
    });
  }

  function join(flight: SharedFlight<T>, participant: Participant<T>): void {
    flight.present.add(participant);
    counts.joined++;
    counts.maxPresent = Math.max(counts.maxPresent, flight.present.size);
    if (options.onEvent !== undefined) {
      emit({ kind: "joined", key: flight.key, present: flight.present.size });
    }
  }

  function lead(key: string, participant: Participant<T>, replaces: boolean): SharedFlight<T> {
    const present = new Set([participant]);
    const flight: SharedFlight<T> = {
      key,
      present,
      leader: participant,
      startedAt: clock.monotonic(),
      abort: new AbortController(),
      get deadline() {
        return latestDeadline(present);
      },
    };
    inFlight++;
    counts.maxPresent = Math.max(counts.maxPresent, 1);
    const joinable = replaces || flights.size < maxInFlight;
    if (joinable) {
      flights.set(key, flight);
      counts.led++;
    } else {
      counts.overflowed++;
    }
    if (options.onEvent !== undefined) {
      emit({ kind: joinable ? "led" : "overflowed", key });
    }
    // After the flight can be found: the work may come back here at once.
    queueMicrotask(() => start(flight));
    return flight;
  }

  function start(flight: SharedFlight<T>): void {
    const { leader, abort } = flight;
    if (abort.signal.aborted) {
      return;
    }
    let running: Promise<T>;
    try {
      running = leader.work(abort.signal, flight);
    } catch (error) {
      running = Promise.reject(error);
    }
    running.then(
      (result) => {
        if (!abort.signal.aborted) {
          succeed(flight, result);
        }
      },
      (error: unknown) => {
        if (!abort.signal.aborted) {
          fail(flight, error);
        }
      },
    );
  }

  /** Takes the flight from where newcomers look, unless another one has taken its place. */
  function end(flight: SharedFlight<T>): void {
    inFlight--;
    if (flights.get(flight.key) === flight) {
      flights.delete(flight.key);
    }
  }

  function succeed(flight: SharedFlight<T>, result: T): void {
    end(flight);
    settle(flight.present, (participant) => {
      const { copy } = participant.caller;
      return participant === flight.leader || copy === undefined ? result : copy(result);
    });
  }

  function fail(flight: SharedFlight<T>, error: unknown): void {
    const { leader } = flight;
    const limit = leader.caller.deadline;
    const outliving = new Set<Participant<T>>();
    const ended = new Set<Participant<T>>();
    const repeatable = limit !== undefined && outlives(error);
    for (const participant of flight.present) {
      const later =
        repeatable && (participant.caller.deadline ?? Number.POSITIVE_INFINITY) >= limit + outliveMs;
      (later ? outliving : ended).add(participant);
    }
    const [next] = outliving;
    if (next === undefined) {
      end(flight);
    } else {
      repeat(flight, ended, next);
    }
    settle(ended, (participant) => {
      const { copyError } = participant.caller;
      throw participant === leader || copyError === undefined ? error : copyError(error);
    });
  }

  /** A hook that fails must not leave anyone waiting. */
  function outlives(error: unknown): boolean {
    try {
      return mayOutlive(error);
    } catch {
      return false;
    }
  }

  /** Each leader's deadline is later than the last one's, so this comes to an end. */
  function repeat(flight: SharedFlight<T>, ended: Iterable<Participant<T>>, next: Participant<T>): void {
    for (const participant of ended) {
      flight.present.delete(participant);
    }
    flight.leader = next;
    flight.startedAt = clock.monotonic();
    flight.abort = new AbortController();
    counts.repeated++;
    if (options.onEvent !== undefined) {
      emit({ kind: "repeated", key: flight.key, present: flight.present.size });
    }
    queueMicrotask(() => start(flight));
  }

  function depart(flight: SharedFlight<T>, participant: Participant<T>, reason: unknown): void {
    flight.present.delete(participant);
    participant.reject(reason);
    if (flight.present.size === 0) {
      end(flight);
      counts.cancelled++;
      if (options.onEvent !== undefined) {
        emit({ kind: "cancelled", key: flight.key, reason });
      }
      flight.abort.abort(reason);
    }
  }

  return {
    run,
    stats() {
      const calls = counts.led + counts.joined + counts.overflowed;
      return { ...counts, inFlight, coalesceRate: calls === 0 ? 0 : counts.joined / calls };
    },
  };
}

/** Tells each participant its outcome, all of them at the same moment: promises call back later. */
function settle<T>(
  participants: Iterable<Participant<T>>,
  outcome: (participant: Participant<T>) => T,
): void {
  for (const { caller, leave } of participants) {
    if (leave !== undefined) {
      caller.signal?.removeEventListener("abort", leave);
    }
  }
  for (const participant of participants) {
    const { resolve, reject } = participant;
    try {
      resolve(outcome(participant));
    } catch (error) {
      reject(error);
    }
  }
}

function latestDeadline<T>(participants: Iterable<Participant<T>>): number | undefined {
  let latest = Number.NEGATIVE_INFINITY;
  for (const { caller } of participants) {
    if (caller.deadline === undefined) {
      return undefined;
    }
    latest = Math.max(latest, caller.deadline);
  }
  return latest;
}
