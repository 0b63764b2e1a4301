import type { Clock } from "@toolplane/framework";
import type { Connection } from "./connection.ts";
import { poolExhausted } from "./errors.ts";
import type { Route } from "./route.ts";

/** A request that waits for a connection. It is told once. */
export interface Waiter {
  grant(connection: Connection): void;
  fail(error: unknown): void;
}

/** What belongs to one route. */
export interface Lane {
  readonly route: Route;
  readonly connections: Set<Connection>;
  /** First come, first served. */
  readonly waiters: Set<Waiter>;
  /** How many connections are being opened. */
  opening: number;
  /** Until when no connection is opened, because the last attempt failed; in monotonic milliseconds. */
  closedUntil: number;
}

export function createLane(route: Route): Lane {
  return {
    route,
    connections: new Set(),
    waiters: new Set(),
    opening: 0,
    closedUntil: Number.NEGATIVE_INFINITY,
  };
}

export interface WaitOptions {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** Called when the time is over, before `onLeft`. */
  readonly onTimeout: () => void;
  /** Called when the waiter has left the lane, whatever the outcome. */
  readonly onLeft: () => void;
}

/** Joins the queue of a lane until a connection is granted, the time is over, or the signal is aborted. */
export function wait(
  lane: Lane,
  { clock, timeoutMs, signal, onTimeout, onLeft }: WaitOptions,
): Promise<Connection> {
  const { promise, resolve, reject } = Promise.withResolvers<Connection>();
  const leave = () => {
    cancelTimer();
    signal?.removeEventListener("abort", onAbort);
    lane.waiters.delete(waiter);
    onLeft();
  };
  const waiter: Waiter = {
    grant: (connection) => {
      leave();
      resolve(connection);
    },
    fail: (error) => {
      leave();
      reject(error);
    },
  };
  const cancelTimer = clock.after(timeoutMs, () => {
    onTimeout();
    waiter.fail(poolExhausted(lane.route.origin, `all were busy for ${timeoutMs} ms`));
  });
  const onAbort = () => waiter.fail(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  lane.waiters.add(waiter);
  return promise;
}
