import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { MARK_VARIABLE, processTree } from "./process-tree.ts";

/** What is to be started. */
export interface WardenOrder {
  readonly argv: readonly string[];
  readonly directory: string;
  /** The whole environment of the runner. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** How long processes that were asked to end may take to do so. */
  readonly graceMs: number;
}

/** How the runner ended. */
export type WardenOutcome =
  /** It never began. `code` is the system's, such as `ENOENT`. */
  | { readonly kind: "not-started"; readonly code: string; readonly message: string }
  | {
      readonly kind: "ended";
      readonly exitCode: number | undefined;
      readonly signal: NodeJS.Signals | undefined;
    }
  /** The warden itself was killed, and what it watched over after it. */
  | { readonly kind: "lost" };

/**
 * A process that starts a runner and sees to it that nothing of it stays: not when the runner ends and leaves others
 * behind, not when it is told to stop, and not when this process is killed, which it learns from its standard input.
 */
export interface Warden {
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Resolves when the runner and all that it started are gone. Never rejects. */
  readonly outcome: Promise<WardenOutcome>;
  /** Stops the runner and all that it started. */
  stop(): void;
}

/** What the warden is told, in one line. */
interface WardenOrders {
  readonly argv: readonly string[];
  readonly directory: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly graceMs: number;
  readonly mark: string;
  readonly variable: string;
}

/** What the warden tells, a line each. */
type WardenReport =
  | { readonly started: number }
  | { readonly failed: { readonly code: string; readonly message: string } }
  | { readonly exitCode: number | null; readonly signal: NodeJS.Signals | null };

export function startWarden(order: WardenOrder): Warden {
  const mark = randomUUID();
  const outerMark = process.env[MARK_VARIABLE];
  const child = spawn(process.execPath, ["--no-warnings", "--eval", wardenSource()], {
    // Out of the reach of Ctrl-C, which this process gets and answers itself.
    detached: true,
    // Nothing that could change how Node runs. The mark of a run around this one, so that it can find the warden.
    env: outerMark === undefined ? {} : { [MARK_VARIABLE]: outerMark },
    stdio: ["pipe", "pipe", "pipe", "pipe"],
  });
  const orders: WardenOrders = {
    ...order,
    env: { ...order.env, [MARK_VARIABLE]: outerMark === undefined ? mark : `${outerMark}/${mark}` },
    mark,
    variable: MARK_VARIABLE,
  };
  // When it is gone already, its exit tells.
  child.stdin?.on("error", () => undefined);
  child.stdin?.write(`${JSON.stringify(orders)}\n`);
  return {
    stdout: child.stdout ?? Readable.from([]),
    stderr: child.stderr ?? Readable.from([]),
    outcome: outcomeOf(child, mark, order.graceMs),
    stop() {
      child.stdin?.write("stop\n");
    },
  };
}

async function outcomeOf(child: ChildProcess, mark: string, graceMs: number): Promise<WardenOutcome> {
  const told: { group: number | undefined; outcome: WardenOutcome | undefined } = {
    group: undefined,
    outcome: undefined,
  };
  const heard = hear(child, (report) => {
    if ("started" in report) {
      told.group = report.started;
    } else if ("failed" in report) {
      told.outcome = { kind: "not-started", ...report.failed };
    } else {
      told.outcome = {
        kind: "ended",
        exitCode: report.exitCode ?? undefined,
        signal: report.signal ?? undefined,
      };
    }
  });
  try {
    await once(child, "exit");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    return { kind: "not-started", code, message: error instanceof Error ? error.message : String(error) };
  }
  await heard;
  if (child.exitCode !== 0) {
    await processTree(told.group, mark, MARK_VARIABLE).stop(graceMs);
  }
  if (told.outcome !== undefined) {
    return told.outcome;
  }
  const how = child.signalCode ?? `code ${child.exitCode}`;
  return told.group === undefined
    ? { kind: "not-started", code: "", message: `the process that was to start it ended with ${how}` }
    : { kind: "lost" };
}

/** Resolves when the warden has told everything. */
async function hear(child: ChildProcess, onReport: (report: WardenReport) => void): Promise<void> {
  const reports = child.stdio[3];
  if (!(reports instanceof Readable)) {
    return;
  }
  try {
    for await (const line of createInterface({ input: reports })) {
      onReport(JSON.parse(line) as WardenReport);
    }
  } catch {
    // It was killed while it told something.
  }
}

/** The program of the warden, from functions of this module: it runs alike from sources and from a bundle. */
function wardenSource(): string {
  return `(${watchOver})(${processTree});`;
}

/**
 * The warden's main function. Uses nothing from outside of its body: its text is run by another process.
 *
 * Orders come on standard input: a line that says what to start, then, at any time, a line or the end of the input, which
 * means stop. Reports go to file descriptor 3. The runner inherits standard output and error.
 */
function watchOver(treeOf: typeof processTree): void {
  const { spawn: start } = process.getBuiltinModule("node:child_process");
  const { writeSync } = process.getBuiltinModule("node:fs");

  process.title = "toolplane-warden";
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE"] as const) {
    process.on(signal, () => undefined);
  }

  function report(message: WardenReport): void {
    try {
      writeSync(3, `${JSON.stringify(message)}\n`);
    } catch {
      // Nobody listens any more.
    }
  }

  let stop: (() => void) | undefined;

  function run({ argv: [file = "", ...args], directory, env, graceMs, mark, variable }: WardenOrders): void {
    const runner = start(file, args, {
      cwd: directory,
      env,
      detached: true,
      stdio: ["ignore", "inherit", "inherit"],
    });
    const group = runner.pid;
    if (group === undefined) {
      runner.on("error", fail);
      return;
    }
    report({ started: group });
    const tree = treeOf(group, mark, variable);
    stop = () => {
      stop = undefined;
      void tree.stop(graceMs);
    };
    runner.on("exit", async (exitCode, signal) => {
      report({ exitCode, signal });
      // Whatever made the runner end, what it leaves behind ends too.
      await tree.stop(graceMs);
      process.exit(0);
    });
  }

  function fail(error: Error): void {
    report({ failed: { code: "code" in error ? String(error.code) : "", message: error.message } });
    process.exit(0);
  }

  let heard = "";
  let begun = false;
  process.stdin.setEncoding("utf8");
  process.stdin.on("data", (text: string) => {
    heard += text;
    for (let end = heard.indexOf("\n"); end !== -1; end = heard.indexOf("\n")) {
      const line = heard.slice(0, end);
      heard = heard.slice(end + 1);
      if (begun) {
        stop?.();
      } else {
        begun = true;
        try {
          run(JSON.parse(line));
        } catch (error) {
          fail(error instanceof Error ? error : new Error(String(error)));
        }
      }
    }
  });
  const parentGone = () => (begun ? stop?.() : process.exit(0));
  process.stdin.on("end", parentGone);
  process.stdin.on("error", parentGone);
}
