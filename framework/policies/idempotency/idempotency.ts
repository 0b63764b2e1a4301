import { type Clock, systemClock } from "../../clock.ts";
import { demandAtLeast } from "../demand.ts";
import { keepAlive } from "../keep-alive.ts";
import { reportEvent } from "../report-event.ts";
import type { Claim, ClaimResult, IdempotencyStore, IdempotentOutcome } from "./store.ts";

export interface IdempotencyOptions {
  readonly store: IdempotencyStore;
  /** How long an outcome is remembered. Milliseconds, default 24 h. */
  readonly retentionMs?: number;
  /**
   * How long a claim outlives a process that has died at work; it is renewed three times as often. Milliseconds, default
   * 30,000.
   */
  readonly leaseMs?: number;
  /** How long work may take; then its signal is aborted. Milliseconds, default 300,000. */
  readonly workTimeoutMs?: number;
  /** How much work may be in progress at once, also for callers who have left. Default 1,000. */
  readonly maxInFlight?: number;
  /** How long `close` waits for work in progress before it aborts it. Milliseconds, default 10,000. */
  readonly closeTimeoutMs?: number;
  readonly clock?: Clock;
  readonly onEvent?: (event: IdempotencyEvent) => void;
}

export type IdempotencyEvent =
  /** Work begins. */
  | { readonly kind: "begun"; readonly scope: string; readonly requestId: string }
  /** The outcome is stored, and from now on that of every repetition. */
  | { readonly kind: "recorded"; readonly scope: string; readonly requestId: string }
  /** The work failed for now: the next one with this id tries again. */
  | { readonly kind: "released"; readonly scope: string; readonly requestId: string; readonly error: unknown }
  /** A repetition got the stored outcome. */
  | { readonly kind: "replayed"; readonly scope: string; readonly requestId: string }
  /** A repetition waits for the one that works. */
  | { readonly kind: "waiting"; readonly scope: string; readonly requestId: string }
  /** The id was used for another request. */
  | { readonly kind: "reused"; readonly scope: string; readonly requestId: string }
  /** The outcome cannot be stored now; that is tried again in the background. */
  | {
      readonly kind: "recording-failed";
      readonly scope: string;
      readonly requestId: string;
      readonly error: unknown;
    }
  /** Somebody else has taken the work over, because this process seemed dead. */
  | { readonly kind: "lease-lost"; readonly scope: string; readonly requestId: string };

/** Counters since the start, but for `inFlight`. */
export interface IdempotencyStats {
  readonly begun: number;
  readonly recorded: number;
  readonly released: number;
  readonly replayed: number;
  /** Calls that had to wait for the work of another one. */
  readonly waited: number;
  readonly reused: number;
  readonly recordingFailed: number;
  readonly leasesLost: number;
  /** Work in progress, its recording included. */
  readonly inFlight: number;
}

export type IdempotencyFailure =
  /** The request id belongs to another request. */
  | "REQUEST_ID_REUSED"
  /** The work was done, but its outcome was too large to be kept. */
  | "OUTCOME_NOT_KEPT"
  /** The store does not answer: nothing was done. */
  | "STORE_UNAVAILABLE"
  /** Too much work is in progress: nothing was done. */
  | "TOO_MANY_IN_FLIGHT"
  /** The work took longer than it may. Whether it was done is not known. */
  | "WORK_TIMEOUT"
  /** Somebody else has taken the work over. Only seen by the work, as the reason of its signal. */
  | "LEASE_LOST"
  /** `close` was called. */
  | "CLOSED";

export class IdempotencyError extends Error {
  override readonly name = "IdempotencyError";
  readonly reason: IdempotencyFailure;

  constructor(reason: IdempotencyFailure, message: string, cause?: unknown) {
    super(message, { cause });
    this.reason = reason;
  }
}

export interface IdempotentRequest {
  /** Whose id it is, and for what: ids of different principals or methods have nothing to do with each other. */
  readonly scope: string;
  readonly requestId: string;
  /** Tells whether a repetition asks for the same. */
  readonly fingerprint: string;
}

/** Returns how it ended for good, success or failure; throws what may be tried again with the same id. */
export type IdempotentWork = (signal: AbortSignal) => Promise<IdempotentOutcome>;

export interface IdempotentResult {
  readonly outcome: IdempotentOutcome;
  /** Whether the outcome is that of another call's work. */
  readonly replayed: boolean;
}

export interface Idempotency {
  /**
   * Does `work`, unless it was done for this request id: then its outcome is returned. Who comes while it is being done
   * waits for it.
   *
   * - `signal` ends the caller's waiting, with its reason, and nothing else: work with side effects is not stopped
   *   half-way because nobody waits any more. It goes on for at most `workTimeoutMs` and its outcome is recorded for the
   *   repetition that is likely to come.
   * - Work that throws releases the id. Everyone who waits then tries in turn, with their own work.
   * - When the process dies at work, its claim expires and the next repetition does the work again. A process that only
   *   seemed dead learns that from its signal (LEASE_LOST), and what it records comes to nothing: its caller gets the
   *   outcome of its successor.
   * - When the store fails before the work has begun, nothing is done. When it fails afterwards the caller is told the
   *   outcome nevertheless, and recording it is tried again for as long as work may take; should the process die before
   *   that succeeds, a repetition does the work again.
   */
  run(
    request: IdempotentRequest,
    work: IdempotentWork,
    caller?: { readonly signal?: AbortSignal },
  ): Promise<IdempotentResult>;
  stats(): IdempotencyStats;
  /** Refuses further work, waits for what is in progress, and aborts what takes too long. */
  close(): Promise<void>;
}

/** How long to wait for the store to be back, and how often to ask it for an outcome that it does not announce. */
const MIN_DELAY_MS = 100;
const MAX_DELAY_MS = 5_000;
/** What aborted work gets to end in. */
const ABORTED_GRACE_MS = 1_000;

/**
 * Lets every request with an id happen once, however often it is sent and to whichever replica (AIP-155,
 * https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/). Exactly once is not to be had when a
 * process can die between a side effect and its recording; everything else is ruled out.
 */
export function createIdempotency(options: IdempotencyOptions): Idempotency {
  const { store, retentionMs = 86_400_000, leaseMs = 30_000, workTimeoutMs = 300_000 } = options;
  const { maxInFlight = 1_000, closeTimeoutMs = 10_000, clock = systemClock } = options;
  demandAtLeast("request ids", 1, { retentionMs, leaseMs, workTimeoutMs, maxInFlight });
  demandAtLeast("request ids", 0, { closeTimeoutMs });
  // Each ends the work in progress that it belongs to.
  const executions = new Set<AbortController>();
  const counts = {
    begun: 0,
    recorded: 0,
    released: 0,
    replayed: 0,
    waited: 0,
    reused: 0,
    recordingFailed: 0,
    leasesLost: 0,
  };
  let closed = false;
  let givenUp = false;
  let closing: Promise<void> | undefined;
  let onIdle: (() => void) | undefined;

  function emit(event: IdempotencyEvent): void {
    reportEvent(options.onEvent, event);
  }

  async function claim(key: string, { fingerprint }: IdempotentRequest): Promise<ClaimResult> {
    try {
      return await store.claim({ key, fingerprint, leaseMs, retentionMs });
    } catch (error) {
      throw new IdempotencyError(
        "STORE_UNAVAILABLE",
        "whether this request was made before cannot be found out now; nothing was done",
        error,
      );
    }
  }

  async function release(
    held: Claim,
    { scope, requestId }: IdempotentRequest,
    error: unknown,
  ): Promise<void> {
    counts.released++;
    emit({ kind: "released", scope, requestId, error });
    // Where that fails the claim expires by itself.
    await store.release(held).catch(() => undefined);
  }

  /** The caller's part: finds out what is to be done. */
  async function attend(
    request: IdempotentRequest,
    work: IdempotentWork,
    signal: AbortSignal | undefined,
  ): Promise<IdempotentResult> {
    const { scope, requestId } = request;
    const key = `${scope.length}:${scope}${requestId}`;
    const news = createNews(clock);
    // Before the store is asked, which would be in vain.
    if (executions.size >= maxInFlight) {
      throw tooMany();
    }
    let waiting: (() => void) | undefined;
    // What our work led to when somebody else had taken it over before we could record it.
    let unrecorded: IdempotentOutcome | undefined;
    try {
      for (let delay = MIN_DELAY_MS; ; delay = Math.min(delay * 2, MAX_DELAY_MS)) {
        if (closed) {
          throw new IdempotencyError("CLOSED", "no more work is begun; send the request elsewhere");
        }
        news.forget();
        const result = await claim(key, request);
        switch (result.kind) {
          case "claimed": {
            if (unrecorded === undefined && signal?.aborted) {
              await release(result.claim, request, signal.reason);
              throw signal.reason;
            }
            if (unrecorded === undefined && executions.size >= maxInFlight) {
              const error = tooMany();
              await release(result.claim, request, error);
              throw error;
            }
            const done = unrecorded;
            const ended = await execute(result.claim, request, done === undefined ? work : async () => done);
            if (ended.kept) {
              return { outcome: ended.outcome, replayed: false };
            }
            unrecorded = ended.outcome;
            break;
          }
          case "completed": {
            if (result.outcome === undefined) {
              throw new IdempotencyError(
                "OUTCOME_NOT_KEPT",
                `the request with the id "${requestId}" was made and has ended, but its outcome was too large to be kept`,
              );
            }
            counts.replayed++;
            emit({ kind: "replayed", scope, requestId });
            return { outcome: result.outcome, replayed: true };
          }
          case "reused":
            counts.reused++;
            emit({ kind: "reused", scope, requestId });
            throw new IdempotencyError(
              "REQUEST_ID_REUSED",
              `the id "${requestId}" was used for another request; every request needs an id of its own`,
            );
          case "busy":
            if (waiting === undefined) {
              counts.waited++;
              emit({ kind: "waiting", scope, requestId });
              // Asked once more afterwards: the work may have ended in between.
              waiting = store.watch(key, news.arrive);
            } else {
              const leaving = unrecorded === undefined ? signal : undefined;
              await news.next(Math.min(delay, Math.max(result.leaseLeftMs, 1)), leaving);
            }
            break;
        }
        // What was done has to be recorded if its successor does not: whoever has left may come back.
        if (unrecorded === undefined) {
          signal?.throwIfAborted();
        }
      }
    } finally {
      waiting?.();
    }
  }

  /** Does the work under a claim. `kept` is false when somebody else has taken the claim over. */
  async function execute(
    held: Claim,
    request: IdempotentRequest,
    work: IdempotentWork,
  ): Promise<
    | { readonly kept: true; readonly outcome: IdempotentOutcome }
    | { readonly kept: false; readonly outcome: IdempotentOutcome | undefined }
  > {
    const { scope, requestId } = request;
    const abort = new AbortController();
    executions.add(abort);
    counts.begun++;
    emit({ kind: "begun", scope, requestId });
    let working = true;
    let lost = false;
    const stopRenewing = keepRenewing(held, () => {
      // The claim ends when the outcome is recorded, too.
      if (!working) {
        return;
      }
      lost = true;
      counts.leasesLost++;
      emit({ kind: "lease-lost", scope, requestId });
      abort.abort(new IdempotencyError("LEASE_LOST", "another process has taken the work over"));
    });
    const finish = () => {
      stopRenewing();
      executions.delete(abort);
      if (executions.size === 0) {
        onIdle?.();
      }
    };

    let outcome: IdempotentOutcome;
    try {
      outcome = await withinTime(work, abort, stopRenewing);
      working = false;
    } catch (error) {
      if (lost) {
        finish();
        return { kept: false, outcome: undefined };
      }
      // Work that may still be going on keeps its claim until that expires.
      if (!(error instanceof StuckWork)) {
        await release(held, request, error);
      }
      finish();
      throw error instanceof StuckWork ? abort.signal.reason : error;
    }
    try {
      const kept = await record(held, request, outcome);
      finish();
      return { kept, outcome };
    } catch (error) {
      counts.recordingFailed++;
      emit({ kind: "recording-failed", scope, requestId, error });
      void recordLater(held, request, outcome).finally(finish);
      return { kept: true, outcome };
    }
  }

  /** Aborts work that takes too long, and gives up on work that does not heed that within the time of a lease. */
  async function withinTime(
    work: IdempotentWork,
    abort: AbortController,
    stopRenewing: () => void,
  ): Promise<IdempotentOutcome> {
    const stuck = Promise.withResolvers<never>();
    let cancelTimer = clock.after(workTimeoutMs, () => {
      abort.abort(new IdempotencyError("WORK_TIMEOUT", `the work took longer than ${workTimeoutMs} ms`));
    });
    const onAbort = () => {
      cancelTimer();
      stopRenewing();
      cancelTimer = clock.after(leaseMs, () => stuck.reject(new StuckWork()));
    };
    abort.signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([work(abort.signal), stuck.promise]);
    } finally {
      abort.signal.removeEventListener("abort", onAbort);
      cancelTimer();
    }
  }

  function keepRenewing(held: Claim, onLost: () => void): () => void {
    let stopped = false;
    let cancel: () => void;
    function schedule(): void {
      cancel = clock.after(leaseMs / 3, () => {
        store.renew(held, leaseMs).then(
          (kept) => {
            if (stopped) {
              return;
            }
            if (kept) {
              schedule();
            } else {
              onLost();
            }
          },
          () => {
            // While the store does not answer, nobody else can take the claim over either.
            if (!stopped) {
              schedule();
            }
          },
        );
      });
    }
    schedule();
    return () => {
      stopped = true;
      cancel();
    };
  }

  async function record(
    held: Claim,
    request: IdempotentRequest,
    outcome: IdempotentOutcome,
  ): Promise<boolean> {
    const small = outcome.bytes.byteLength <= store.maxOutcomeBytes;
    const kept = await store.complete(held, small ? outcome : undefined, retentionMs);
    if (kept) {
      counts.recorded++;
      emit({ kind: "recorded", scope: request.scope, requestId: request.requestId });
    }
    return kept;
  }

  async function recordLater(
    held: Claim,
    request: IdempotentRequest,
    outcome: IdempotentOutcome,
  ): Promise<void> {
    const end = clock.monotonic() + workTimeoutMs;
    for (
      let delay = MIN_DELAY_MS;
      clock.monotonic() < end && !givenUp;
      delay = Math.min(delay * 2, MAX_DELAY_MS)
    ) {
      await new Promise<void>((resolve) => clock.after(delay, resolve));
      try {
        await record(held, request, outcome);
        return;
      } catch {
        // Told when it failed first.
      }
    }
  }

  async function idleWithin(ms: number): Promise<void> {
    if (executions.size > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      onIdle = resolve;
      const cancel = clock.after(ms, resolve);
      await promise;
      cancel();
    }
  }

  async function end(): Promise<void> {
    closed = true;
    // Whoever closes as the last thing of all wants outcomes recorded, also while nothing else is going on.
    const letEnd = keepAlive();
    await idleWithin(closeTimeoutMs);
    givenUp = true;
    for (const abort of executions) {
      abort.abort(new IdempotencyError("CLOSED", "the work was stopped because the server stops"));
    }
    await idleWithin(ABORTED_GRACE_MS);
    letEnd();
  }

  return {
    run(request, work, { signal } = {}) {
      return signal === undefined
        ? attend(request, work, signal)
        : untilLeft(attend(request, work, signal), signal);
    },
    stats: () => ({ ...counts, inFlight: executions.size }),
    close() {
      closing ??= end();
      return closing;
    },
  };
}

function tooMany(): IdempotencyError {
  return new IdempotencyError("TOO_MANY_IN_FLIGHT", "too much work is in progress; nothing was done");
}

/** Work that was aborted and goes on all the same. */
class StuckWork extends Error {}

/** Waits for news that may arrive before anyone waits for it. */
function createNews(clock: Clock) {
  let arrived = false;
  let wake: (() => void) | undefined;
  return {
    arrive() {
      arrived = true;
      wake?.();
    },
    forget() {
      arrived = false;
    },
    /** Resolves when there is news, after `ms`, or when the signal aborts. */
    async next(ms: number, signal: AbortSignal | undefined): Promise<void> {
      if (arrived || signal?.aborted) {
        return;
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      const cancel = clock.after(ms, resolve);
      const leave = () => resolve();
      signal?.addEventListener("abort", leave, { once: true });
      await promise;
      signal?.removeEventListener("abort", leave);
      cancel();
      wake = undefined;
    },
  };
}

/** Settles as `promise` does, or as soon as the caller leaves. */
function untilLeft<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = () => reject(signal.reason);
    if (signal.aborted) {
      leave();
    }
    signal.addEventListener("abort", leave, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
  });
}
