import type { Clock } from "@toolplane/framework";
import type { Head } from "./channel.ts";

/** A stream that is watched on this replica: where it ends, and who waits for more. */
export interface Follower {
  readonly id: string;
  readonly stream: string;
  readonly last: number;
  /** No event follows the last one. */
  readonly closed: boolean;
  /** Why watching it has to end. */
  readonly failure: Error | undefined;
  /** News, perhaps old: streams only grow. */
  advance(head: Pick<Head, "last" | "closed">): void;
  fail(error: Error): void;
  /** Resolves at the next news, after `ms`, or when the signal is aborted. */
  wait(ms: number, signal: AbortSignal): Promise<void>;
}

export function createFollower(stream: string, head: Head, clock: Clock): Follower {
  let { last, closed } = head;
  let failure: Error | undefined;
  let waiting = new Set<() => void>();

  function wake(): void {
    const woken = waiting;
    waiting = new Set();
    for (const resume of woken) {
      resume();
    }
  }

  return {
    id: head.id,
    stream,
    get last() {
      return last;
    },
    get closed() {
      return closed;
    },
    get failure() {
      return failure;
    },
    advance(news) {
      if (news.last > last || (news.closed && !closed)) {
        last = Math.max(last, news.last);
        closed ||= news.closed;
        wake();
      }
    },
    fail(error) {
      failure ??= error;
      wake();
    },
    wait(ms, signal) {
      return new Promise((resolve) => {
        if (signal.aborted || failure !== undefined) {
          resolve();
          return;
        }
        const resume = () => {
          waiting.delete(resume);
          cancel();
          signal.removeEventListener("abort", resume);
          resolve();
        };
        const cancel = clock.after(ms, resume);
        signal.addEventListener("abort", resume);
        waiting.add(resume);
      });
    },
  };
}
