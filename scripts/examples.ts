// The example services: what they need, and how to start them. Used by the demo and by the tests across languages.
import { type ChildProcess, type ChildProcessByStdio, execFile, spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const python = join(root, "examples", "python");
const go = join(root, "examples", "go");
/** Where things are built that nobody commits. */
export const cacheFolder = join(root, ".cache");
/** The Python that has the packages of `examples/python/requirements.txt`. */
export const venvPython = join(python, ".venv", "bin", "python");

/** A service under `examples/`. */
export interface Example {
  readonly language: string;
  /** Why it cannot run on this machine; undefined when it can. */
  readonly missing: () => string | undefined;
  /** Builds and installs what is not there yet. */
  readonly prepare: () => Promise<void>;
  /** The command that serves on a free port. */
  readonly command: readonly string[];
}

/** By the names under which they are registered. */
export const examples = {
  text: {
    language: "TypeScript",
    missing: () => undefined,
    prepare: async () => undefined,
    command: [
      process.execPath,
      "--conditions=toolplane-source",
      join(root, "examples", "typescript", "main.ts"),
      "127.0.0.1:0",
    ],
  },
  time: {
    language: "Python",
    missing: () =>
      needs("Python 3.10 or newer", "python3", ["-c", "import sys; sys.exit(sys.version_info < (3, 10))"]),
    prepare: prepareVenv,
    command: [venvPython, join(python, "service.py"), "--listen", "127.0.0.1:0"],
  },
  diff: {
    language: "Go",
    missing: () => needs("Go 1.24 or newer", "go", ["list", "-C", go, "-m"]),
    prepare: () => run("go", ["build", "-C", go, "-o", join(cacheFolder, "bin", "diff-service"), "."]),
    command: [join(cacheFolder, "bin", "diff-service"), "-listen", "127.0.0.1:0"],
  },
  stats: {
    language: "Python",
    missing: () =>
      needs("Python 3.10 or newer", "python3", ["-c", "import sys; sys.exit(sys.version_info < (3, 10))"]),
    prepare: async () => undefined,
    command: ["python3", join(python, "http_service.py"), "--listen", "127.0.0.1:0"],
  },
} as const satisfies Record<string, Example>;

/** A process that said where it listens. */
export interface RunningExample {
  readonly url: string;
  /** `127.0.0.1:port`. */
  readonly address: string;
  /** Asks it to end, as an operator would, and waits until it has. */
  stop(): Promise<void>;
  /** Ends it without a chance to say goodbye. */
  kill(): Promise<void>;
}

/** Starts an example that is prepared; see `startProcess`. */
export function startExample(
  example: Example,
  env: Readonly<Record<string, string>> = {},
  signal?: AbortSignal,
): Promise<RunningExample> {
  return startProcess(example.command, env, /listening on (http:\/\/(\S+))/, signal);
}

/**
 * Starts a process and waits for the line in which it says where it listens. A process that does not get that far has
 * ended when the promise is rejected.
 *
 * @param env comes on top of the environment
 * @param listening finds the URL (first group) in what the process prints
 * @param signal gives up waiting and ends the process
 */
export async function startProcess(
  [file = "", ...args]: readonly string[],
  env: Readonly<Record<string, string>>,
  listening: RegExp,
  signal: AbortSignal = new AbortController().signal,
): Promise<RunningExample> {
  signal.throwIfAborted();
  const child = spawn(file, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const exited = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const end = (name: NodeJS.Signals) => async () => {
    signalTo(child, name);
    await exited;
  };
  const giveUp = () => signalTo(child, "SIGTERM");
  signal.addEventListener("abort", giveUp);
  try {
    const url = await firstMatch(child, listening);
    signal.throwIfAborted();
    return { url, address: new URL(url).host, stop: end("SIGTERM"), kill: end("SIGKILL") };
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

/** Reads what a process prints, to its end, so that it never has to wait. Rejects when it ends without a match. */
function firstMatch(child: ChildProcessByStdio<null, Readable, Readable>, pattern: RegExp): Promise<string> {
  const said: string[] = [];
  return new Promise((resolve, reject) => {
    const note = (line: string) => {
      const found = pattern.exec(line)?.[1];
      if (found) {
        resolve(found);
      }
      said.push(line);
      said.splice(0, said.length - 20);
    };
    createInterface({ input: child.stdout }).on("line", note);
    createInterface({ input: child.stderr }).on("line", note);
    child.once("error", reject);
    child.once("close", () =>
      reject(new Error(`${child.spawnfile} ended before it listened:\n${said.join("\n")}`)),
    );
  });
}

function signalTo(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill(signal);
  }
}

/** Runs a command to its end; rejects with what it printed when it fails. */
export async function run(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  await promisify(execFile)(file, [...args], {
    cwd: root,
    env: { ...process.env, ...env },
    maxBuffer: 16 * 1024 * 1024,
  });
}

function needs(what: string, file: string, probe: readonly string[]): string | undefined {
  return spawnSync(file, probe, { stdio: "ignore" }).status === 0 ? undefined : `${what} is not installed`;
}

/** Makes the virtual environment, and again when the requirements have changed. */
async function prepareVenv(): Promise<void> {
  const requirements = join(python, "requirements.txt");
  const installed = join(python, ".venv", "installed.txt");
  const wanted = readFileSync(requirements, "utf8");
  if (!existsSync(installed) || readFileSync(installed, "utf8") !== wanted) {
    await run("python3", ["-m", "venv", "--clear", dirname(dirname(venvPython))]);
    await run(venvPython, [
      "-m",
      "pip",
      "install",
      "--quiet",
      "--disable-pip-version-check",
      "-r",
      requirements,
    ]);
    writeFileSync(installed, wanted);
  }
  await run(venvPython, [join(python, "compile_proto.py")]);
}
