import type { Clock } from "@toolplane/framework";
import pLimit from "p-limit";

/**
 * Does something for each of many ids, again and again. The work returns in how many milliseconds it is due again;
 * undefined means never, unless it is planned anew.
 */
export type ScheduledWork = (id: string, signal: AbortSignal) => Promise<number | undefined>;

/** Plans work that repeats, so many at a time. One id's work never overlaps with itself. */
export interface Schedule {
  /** Plans the work for an id in `delayMs`, or sooner if it is planned sooner. */
  plan(id: string, delayMs: number): void;
  /** Forgets an id. Its work, if it goes on, ends without being planned again. */
  forget(id: string): void;
  has(id: string): boolean;
  /** Forgets everything, aborts what goes on, and waits for it. */
  close(): Promise<void>;
}

interface Plan {
  dueAt: number;
  cancel: () => void;
  running: boolean;
}

export interface ScheduleOptions {
  readonly clock: Clock;
  /** How many ids' work is done at once. */
  readonly concurrency: number;
  readonly work: ScheduledWork;
  /** Called when work fails that should have taken care of its errors. It is not planned again. */
  onError(error: unknown): void;
}

export function createSchedule({ clock, concurrency, work, onError }: ScheduleOptions): Schedule {
  const plans = new Map<string, Plan>();
  const limit = pLimit(concurrency);
  const stop = new AbortController();
  const running = new Set<Promise<void>>();

  function arm(id: string, plan: Plan, delayMs: number): void {
    plan.cancel();
    plan.dueAt = clock.monotonic() + delayMs;
    plan.cancel = clock.after(delayMs, () => {
      plan.running = true;
      const turn = limit(() => run(id, plan)).finally(() => running.delete(turn));
      running.add(turn);
    });
  }

  async function run(id: string, plan: Plan): Promise<void> {
    if (plans.get(id) !== plan) {
      return;
    }
    plan.dueAt = Number.POSITIVE_INFINITY;
    let delay: number | undefined;
    try {
      delay = await work(id, stop.signal);
    } catch (error) {
      onError(error);
    }
    plan.running = false;
    if (plans.get(id) !== plan) {
      return;
    }
    // Planned while the work went on: the sooner one counts.
    const due = Math.min(plan.dueAt, clock.monotonic() + (delay ?? Number.POSITIVE_INFINITY));
    if (due === Number.POSITIVE_INFINITY) {
      plans.delete(id);
    } else {
      arm(id, plan, Math.max(0, due - clock.monotonic()));
    }
  }

  return {
    plan(id, delayMs) {
      if (stop.signal.aborted) {
        return;
      }
      let plan = plans.get(id);
      if (!plan) {
        plan = { dueAt: Number.POSITIVE_INFINITY, cancel: () => {}, running: false };
        plans.set(id, plan);
      }
      const dueAt = clock.monotonic() + delayMs;
      if (dueAt >= plan.dueAt) {
        return;
      }
      if (plan.running) {
        plan.dueAt = dueAt;
      } else {
        arm(id, plan, delayMs);
      }
    },
    forget(id) {
      plans.get(id)?.cancel();
      plans.delete(id);
    },
    has: (id) => plans.has(id),
    async close() {
      stop.abort();
      for (const { cancel } of plans.values()) {
        cancel();
      }
      plans.clear();
      await Promise.all(running);
    },
  };
}
