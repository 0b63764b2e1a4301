/** The environment variable that marks everything that a runner starts. Runs inside of runs have all marks, with `/`. */
export const MARK_VARIABLE = "TOOLPLANE_TEST_RUN";

/** The processes that a runner started, its own included. */
export interface ProcessTree {
  /** Processes that live: of the group, where it is known, and on Linux all that have the mark. */
  members(): number[];
  /**
   * Asks all to end, and kills what still lives after the grace. Resolves when none is left, or 10 s later: the system
   * does not let go of a process that waits for a broken disk.
   */
  stop(graceMs: number): Promise<void>;
}

/**
 * Finds the processes of a runner by their group, and on Linux also those that have left it, by a mark in their
 * environment. Elsewhere a process that makes a group of its own gets away.
 *
 * Uses nothing from outside of its body: its text is also run by the warden.
 */
export function processTree(group: number | undefined, mark: string, variable: string): ProcessTree {
  const { readdirSync, readFileSync } = process.getBuiltinModule("node:fs");

  /** A negative number stands for the group. */
  function livingGroup(): number[] {
    if (group === undefined) {
      return [];
    }
    try {
      process.kill(-group, 0);
      return [-group];
    } catch {
      return [];
    }
  }

  function isMember(pid: string): boolean {
    try {
      // The name, in parentheses, may hold anything. Then come state, parent and group.
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      const [state = "", , itsGroup] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (state === "Z" || state === "X") {
        return false;
      }
      return Number(itsGroup) === group || hasMark(readFileSync(`/proc/${pid}/environ`, "latin1"));
    } catch {
      // It ended meanwhile, or belongs to somebody else.
      return false;
    }
  }

  function hasMark(environment: string): boolean {
    const entry = environment.split("\0").find((each) => each.startsWith(`${variable}=`));
    return (
      entry
        ?.slice(variable.length + 1)
        .split("/")
        .includes(mark) ?? false
    );
  }

  function members(): number[] {
    if (process.platform !== "linux") {
      return livingGroup();
    }
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid && isMember(name))
      .map(Number);
  }

  function send(pid: number, signal: NodeJS.Signals): void {
    try {
      process.kill(pid, signal);
    } catch {
      // It ended meanwhile.
    }
  }

  return {
    members,
    async stop(graceMs) {
      const asked = new Set<number>();
      const deadline = performance.now() + graceMs;
      // Again and again: a process may start another before it ends.
      for (let pauseMs = 5; performance.now() < deadline + 10_000; pauseMs = Math.min(pauseMs * 2, 100)) {
        const alive = members();
        if (alive.length === 0) {
          return;
        }
        const late = performance.now() >= deadline;
        for (const pid of alive) {
          if (late) {
            send(pid, "SIGKILL");
          } else if (!asked.has(pid)) {
            asked.add(pid);
            send(pid, "SIGTERM");
          }
        }
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
    },
  };
}
