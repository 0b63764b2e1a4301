import { untilAborted } from "./sleep.ts";

/**
 * Lets a run come to rest: what has begun ends and is recorded, and nothing begins any more. What waits for parts of
 * itself does not count as begun: it goes on from its last part wherever the run goes on.
 */
export interface Resting {
  /** Resolves when an attempt may begin: at once, or never. Rejects when `signal` is aborted. */
  admit(signal: AbortSignal): Promise<void>;
  /** Something has begun. */
  begin(): Busy;
  /** From now on nothing begins. Calls back once, when all that had begun is recorded. */
  rest(onQuiet: () => void): void;
}

/** Something that has begun. */
export interface Busy {
  /** It has come to wait for a part of itself; call what is returned when that has ended. */
  part(): () => void;
  /** It is recorded. */
  end(): void;
}

export function createResting(): Resting {
  let busy = 0;
  let quiet: (() => void) | undefined;
  const never = new Promise<never>(() => {});

  function change(by: number): void {
    busy += by;
    if (busy === 0 && quiet !== undefined) {
      // What ends may go on with its next part, which does not begin.
      setImmediate(() => {
        if (busy === 0) {
          quiet?.();
          quiet = undefined;
        }
      });
    }
  }

  return {
    admit: async (signal) => {
      if (quiet !== undefined) {
        await untilAborted(never, signal);
      }
    },

    begin() {
      let parts = 0;
      let isOver = false;
      change(1);
      return {
        part() {
          if (parts++ === 0 && !isOver) {
            change(-1);
          }
          return () => {
            if (--parts === 0 && !isOver) {
              change(1);
            }
          };
        },
        end() {
          if (!isOver && parts === 0) {
            change(-1);
          }
          isOver = true;
        },
      };
    },

    rest(onQuiet) {
      quiet = onQuiet;
      change(0);
    },
  };
}
