import type { Clock } from "@toolplane/framework";
import type { Logger } from "pino";
import { CancelledError, type Engine, ReleasedError } from "../engine/engine.ts";
import type { ClaimableJob, Claims } from "../engine/journal.ts";
import type { RunJobs } from "../jobs.ts";

/** When there has been no word of new jobs, they are looked for all the same. */
const POLL_MS = 2_000;
/** How often a worker says that it lives. */
const TOUCH_MS = 3_000;
/** Without having said so for this long, it lets go of its runs: after 10 s others take them over. */
const HELD_MS = 9_000;
/** How often it looks at these times. */
const TICK_MS = 1_000;
/** How many runs a worker has, with those that only wait for others, in terms of those that it works on. */
const MAX_HELD = 10;
/** How long a run that was lost and fetched again may take to record what it had come to, before it goes on anew. */
const LET_GO_MS = 3_000;
/** How many jobs are fetched at once: several replicas that are woken together share what there is. */
const FETCHED_AT_ONCE = 10;
/** How long calls may take to end when the worker drains: others would have to make them once more. */
const DRAIN_GRACE_MS = 5_000;
/** How long runs may take to let go then. */
const DRAIN_TIMEOUT_MS = 10_000;
/** Before a run whose driving has failed is tried again: doubled with each time that it was fetched. */
const MIN_BACKOFF_MS = 1_000;
const MAX_BACKOFF_MS = 10_000;

/** Works on runs. */
export interface Worker {
  /** How many runs it has. */
  readonly active: number;
  /** Takes no more runs and lets others go on with those that it has. Resolves when it has none, or after 10 s. */
  drain(): Promise<void>;
  /** Drains, and ends. */
  close(): Promise<void>;
}

export interface WorkerOptions {
  readonly jobs: RunJobs;
  readonly claims: Claims;
  readonly engine: Engine;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly maxConcurrentRuns: number;
  /** Names this replica among all, anew with each start. */
  readonly name: string;
}

/** Fetches jobs as there is room, and drives their runs until they end, wait, or are another worker's. */
export function startWorker(options: WorkerOptions): Worker {
  return new RunWorker(options);
}

/** A job that this worker has. */
interface Held {
  readonly job: ClaimableJob;
  readonly controller: AbortController;
  /** When it was last certain that the job is this worker's, by the monotonic clock. */
  heldAt: number;
  /** Resolved when nothing is done here any more with this fetch of the job. */
  readonly over: PromiseWithResolvers<void>;
  /** It only waits for runs that it has started. They may have to be worked on here, so that it takes nobody's place. */
  isIdle: boolean;
}

class RunWorker implements Worker {
  readonly #options: WorkerOptions;
  readonly #held = new Set<Held>();
  readonly #unsubscribe: readonly (() => void)[];
  readonly #drained = Promise.withResolvers<void>();
  #isDraining = false;
  #draining: Promise<void> | undefined;
  #isFetching = false;
  /** Whether there may be something to fetch. */
  #mayBeMore = true;
  #touchedAt: number;
  #isAway = false;
  #cancelPoll: () => void = () => undefined;
  #cancelTick: () => void = () => undefined;

  constructor(options: WorkerOptions) {
    this.#options = options;
    const { jobs, claims, clock } = options;
    this.#touchedAt = clock.monotonic();
    this.#unsubscribe = [
      jobs.onWork(() => this.#fetchSoon()),
      claims.onCancel((runId, by, message) => this.#cancel(runId, by, message)),
    ];
    this.#schedulePoll();
    this.#scheduleTick();
    this.#fetchSoon();
  }

  get active(): number {
    return this.#held.size;
  }

  drain(): Promise<void> {
    this.#draining ??= this.#drain();
    return this.#draining;
  }

  close(): Promise<void> {
    return this.drain();
  }

  async #drain(): Promise<void> {
    const { clock, logger } = this.#options;
    this.#isDraining = true;
    this.#cancelPoll();
    for (const { controller } of this.#held) {
      controller.abort(new ReleasedError("the worker stops", DRAIN_GRACE_MS));
    }
    this.#tellIfDrained();
    const giveUp = clock.after(DRAIN_TIMEOUT_MS, () => {
      logger.warn({ runs: this.#held.size }, "runs did not let go in time; others take them over in 10 s");
      this.#drained.resolve();
    });
    await this.#drained.promise;
    giveUp();
    this.#cancelTick();
    for (const unsubscribe of this.#unsubscribe) {
      unsubscribe();
    }
  }

  #tellIfDrained(): void {
    if (this.#isDraining && this.#held.size === 0 && !this.#isFetching) {
      this.#drained.resolve();
    }
  }

  #schedulePoll(): void {
    this.#cancelPoll = this.#options.clock.after(POLL_MS, () => {
      this.#schedulePoll();
      this.#fetchSoon();
    });
  }

  #fetchSoon(): void {
    this.#mayBeMore = true;
    if (!this.#isFetching) {
      void this.#fetchAll();
    }
  }

  /** Fetches until there is no room or nothing more. */
  async #fetchAll(): Promise<void> {
    this.#isFetching = true;
    try {
      while (this.#mayBeMore && !this.#isDraining) {
        const room = Math.min(this.#room(), FETCHED_AT_ONCE);
        if (room < 1) {
          return;
        }
        this.#mayBeMore = false;
        if ((await this.#fetch(room)) === room) {
          this.#mayBeMore = true;
        }
      }
    } catch (error) {
      this.#warnOnce(error, "cannot fetch runs; trying again");
    } finally {
      this.#isFetching = false;
      this.#tellIfDrained();
    }
  }

  /** How many runs it may work on besides those that it has. */
  #room(): number {
    let left = this.#options.maxConcurrentRuns;
    for (const { isIdle } of this.#held) {
      left -= isIdle ? 0 : 1;
    }
    return left;
  }

  /** Returns how many runs there were to work on. */
  async #fetch(limit: number): Promise<number> {
    const { jobs, clock, maxConcurrentRuns } = this.#options;
    const heldAt = clock.monotonic();
    // With very many that wait, only those that are waited for.
    const minDepth = this.#held.size >= MAX_HELD * maxConcurrentRuns ? 1 : 0;
    const fetched = await jobs.fetch(limit, minDepth);
    this.#isAway = false;
    for (const job of fetched) {
      void this.#work({
        job,
        controller: new AbortController(),
        heldAt,
        isIdle: false,
        over: Promise.withResolvers(),
      });
    }
    return fetched.length;
  }

  async #work(held: Held): Promise<void> {
    const { job, controller } = held;
    const earlier = [...this.#held].filter((other) => other.job.id === job.id);
    for (const other of earlier) {
      other.controller.abort(new ReleasedError("the run was lost and fetched again"));
    }
    this.#held.add(held);
    if (this.#isDraining) {
      controller.abort(new ReleasedError("the worker stops"));
    }
    const { jobs, logger } = this.#options;
    const log = logger.child({ runId: job.runId, job: job.id });
    let done: Promise<void>;
    try {
      await this.#letGo(earlier);
      done = (await this.#drive(held)) === "done" ? jobs.complete(job) : jobs.release(job);
    } catch (error) {
      log.error({ err: error }, "could not go on with a run; it is tried again");
      done = jobs.release(job, this.#options.clock.now() + backoffMs(job));
    }
    // What fails here is made good by the next worker that has the job, when it is not touched any more.
    await done.catch((error: unknown) => log.warn({ err: error }, "could not let go of a run's job"));
    this.#held.delete(held);
    held.over.resolve();
    this.#tellIfDrained();
    if (this.#mayBeMore) {
      this.#fetchSoon();
    }
  }

  /** Waits, not for long, for what still ends. */
  async #letGo(earlier: readonly Held[]): Promise<void> {
    if (earlier.length > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const giveUp = this.#options.clock.after(LET_GO_MS, resolve);
      await Promise.race([promise, Promise.all(earlier.map(({ over }) => over.promise))]);
      giveUp();
    }
  }

  /** Whether the job is done, or is to be another worker's. */
  async #drive(held: Held): Promise<"done" | "released"> {
    const { job, controller } = held;
    const { claims, engine, name } = this.#options;
    const { signal } = controller;
    if (isReleased(signal)) {
      return "released";
    }
    const claimed = await claims.claim(job, name);
    if (claimed === undefined) {
      return "done";
    }
    const outcome = await engine.drive(claimed.run, claimed.journal, {
      signal,
      onIdle: (isIdle) => {
        held.isIdle = isIdle;
        if (isIdle) {
          this.#fetchSoon();
        }
      },
      onAnswer: (callback) =>
        claims.onAnswer((runId) => {
          if (runId === undefined || runId === job.runId) {
            callback();
          }
        }),
    });
    switch (outcome) {
      case "finished":
      case "parked":
        return "done";
      case "left":
        return isReleased(signal) ? "released" : "done";
    }
  }

  #cancel(runId: string, by: string, message: string): void {
    for (const { job, controller } of this.#held) {
      if (job.runId === runId) {
        controller.abort(new CancelledError(by, message));
      }
    }
  }

  #scheduleTick(): void {
    const { clock } = this.#options;
    this.#cancelTick = clock.after(TICK_MS, () => {
      this.#scheduleTick();
      this.#releaseLapsed();
      // Also while an earlier one is not answered: its connection may be lost in silence.
      if (clock.monotonic() - this.#touchedAt >= TOUCH_MS) {
        void this.#touch();
      }
    });
  }

  /** Lets go of runs of which it is no longer certain that they are this worker's: it was stopped, or the database is away. */
  #releaseLapsed(): void {
    const now = this.#options.clock.monotonic();
    for (const { job, controller, heldAt } of this.#held) {
      if (now - heldAt >= HELD_MS && !controller.signal.aborted) {
        this.#options.logger.warn({ runId: job.runId }, "letting go of a run that another worker may have");
        controller.abort(new ReleasedError("the worker could not say that it lives"));
      }
    }
  }

  async #touch(): Promise<void> {
    const { jobs, clock, logger } = this.#options;
    const touchedAt = clock.monotonic();
    this.#touchedAt = touchedAt;
    // Whoever is to let go is not kept from being taken for dead.
    const touched = [...this.#held].filter(({ controller }) => !isReleased(controller.signal));
    if (touched.length === 0) {
      return;
    }
    try {
      const kept = await jobs.touch(touched.map(({ job }) => job));
      this.#isAway = false;
      for (const held of touched) {
        if (kept.has(held.job.id)) {
          held.heldAt = Math.max(held.heldAt, touchedAt);
        } else if (this.#held.has(held) && !held.controller.signal.aborted) {
          logger.warn({ runId: held.job.runId }, "another worker has taken over a run");
          held.controller.abort(new ReleasedError("another worker has the run"));
        }
      }
    } catch (error) {
      this.#warnOnce(error, "cannot say that this worker lives; trying again");
    }
  }

  /** Says that the database is away once, not every few seconds. */
  #warnOnce(error: unknown, message: string): void {
    if (!this.#isAway) {
      this.#isAway = true;
      this.#options.logger.warn({ err: error }, message);
    }
  }
}

function isReleased(signal: AbortSignal): boolean {
  return signal.reason instanceof ReleasedError;
}

function backoffMs({ retryCount }: ClaimableJob): number {
  return Math.min(MIN_BACKOFF_MS * 2 ** Math.min(retryCount, 16), MAX_BACKOFF_MS);
}
