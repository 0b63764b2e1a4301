import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { fromJsonString } from "@bufbuild/protobuf";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { type TestResult, TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { PreparedRunner, Runner, RunnerPlan } from "../runners/runner.ts";

const binaries = fileURLToPath(new URL("../../node_modules/.bin", import.meta.url));

export interface RunnerRun {
  readonly prepared: PreparedRunner;
  readonly events: readonly TestEvent[];
  /** Results in the order in which they came, of each test the last. */
  readonly results: readonly TestResult[];
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The coverage files that the runner was told to write, by their contents. */
  readonly coverage: readonly string[];
}

export interface RunOptions {
  readonly command: readonly string[];
  readonly directory: string;
  readonly selection?: Partial<RunnerPlan["selection"]>;
  readonly coverage?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a real runner the way a server does, and reads what our reporter told. */
export async function runRunner(runner: Runner, options: RunOptions): Promise<RunnerRun> {
  const workFolder = await mkdtemp(join(tmpdir(), "toolplane-runner-"));
  try {
    const spoolFile = join(workFolder, "events");
    const prepared = await runner.prepare({
      command: options.command,
      directory: options.directory,
      env: { ...process.env, ...options.env },
      selection: { files: [], namePattern: "", tags: [], tests: [], ...options.selection },
      coverage: options.coverage ?? false,
      workFolder,
      spoolFile,
    });
    const [file = "", ...words] = prepared.argv;
    const child = spawn(file, words, {
      cwd: options.directory,
      stdio: ["ignore", "pipe", "pipe"],
      timeout: 90_000,
      env: {
        HOME: process.env["HOME"],
        // The Node that runs this is the one that runs the tests.
        PATH: [dirname(process.execPath), binaries, process.env["PATH"]].join(delimiter),
        ...options.env,
        ...prepared.env,
      },
    });
    const ended = new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => resolve([code, signal]));
    });
    const [stdout, stderr, [exitCode, signal]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      ended,
    ]);
    const lines = (await readFile(spoolFile, "utf8").catch(() => "")).split("\n").filter(Boolean);
    const events = lines.map((line) => fromJsonString(TestEventSchema, line));
    const coverage = await Promise.all(prepared.coverageFiles.map((path) => readFile(path, "utf8")));
    return { prepared, events, results: lastResults(events), stdout, stderr, exitCode, signal, coverage };
  } finally {
    await rm(workFolder, { recursive: true, force: true });
  }
}

function lastResults(events: readonly TestEvent[]): TestResult[] {
  const results = new Map<string, TestResult>();
  for (const { kind } of events) {
    if (kind.case === "testEnded") {
      const { $typeName: _, $unknown: __, ...test } = kind.value.test ?? { $typeName: undefined };
      results.set(JSON.stringify(test), kind.value);
    }
  }
  return [...results.values()];
}

/** Suites and name, which with the status is what runners print. */
export function pathOf({ test }: TestResult): string {
  return [...(test?.suitePath ?? []), test?.name].join(" > ");
}

/** The results that a runner knows of itself: it does not tell of tests that it lost. */
export function told(results: readonly TestResult[]): TestResult[] {
  return results.filter(({ status }) => status !== TestStatus.INTERRUPTED && status !== TestStatus.NOT_RUN);
}

/** How a status reads in the reports of runners, which know fewer of them. */
export function plainStatus({ status }: TestResult): "passed" | "failed" | "skipped" | "todo" {
  switch (status) {
    case TestStatus.PASSED:
    case TestStatus.EXPECTED_FAILURE:
      return "passed";
    case TestStatus.SKIPPED:
      return "skipped";
    case TestStatus.TODO:
      return "todo";
    default:
      return "failed";
  }
}
