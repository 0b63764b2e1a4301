import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { create } from "@bufbuild/protobuf";
import { execute } from "@toolplane/client/runners";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import {
  type TestIdentity,
  type TestResult,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { reportReader } from "../../client/runners/report-files.ts";
import type { Runner, RunnerEnd, RunnerPlan, RunnerSelection } from "../../client/runners/runner.ts";
import { cacheFolder, run } from "../../scripts/examples.ts";
import { fullName } from "../../server/test-runs/test-id.ts";

/** What a runner told and wrote. */
export interface RanTests {
  readonly end: RunnerEnd;
  readonly events: readonly TestEvent[];
  /** Lines of standard output, as the tool wrote them. */
  readonly lines: readonly string[];
  /** How each test ended, by file and full name. */
  readonly results: ReadonlyMap<string, TestResult>;
}

export interface RunTestsOptions {
  readonly selection?: Partial<RunnerSelection>;
  readonly coverage?: boolean;
  /** Sees events as they come. */
  readonly onEvent?: (event: TestEvent) => void;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs tests as the server and `toolplane test report` do. */
export async function runTests(
  runner: Runner,
  command: readonly string[],
  directory: string,
  options: RunTestsOptions = {},
): Promise<RanTests> {
  const workFolder = await mkdtemp(join(tmpdir(), "toolplane-run-"));
  try {
    const spoolFile = join(workFolder, "spool.jsonl");
    const prepared = await runner.prepare(planOf(command, directory, workFolder, spoolFile, options));
    const lines: string[] = [];
    const events: TestEvent[] = [];
    const { stdout } = prepared;
    const end = await execute({
      prepared: {
        ...prepared,
        stdout: stdout && {
          line: (text) => {
            lines.push(text);
            return stdout.line(text);
          },
          end: () => stdout.end(),
        },
      },
      directory,
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: "1", ...options.env },
      signal: AbortSignal.timeout(110_000),
      spoolFile,
      readCoverage: reportReader(directory),
      onEvents: async (more) => {
        for (const init of more) {
          const event = create(TestEventSchema, init);
          events.push(event);
          options.onEvent?.(event);
        }
      },
    });
    if (stdout === undefined) {
      lines.push(...outputOf(events).split("\n"));
    }
    return { end, events, lines, results: resultsOf(events) };
  } finally {
    await rm(workFolder, { recursive: true, force: true, maxRetries: 5 });
  }
}

function planOf(
  command: readonly string[],
  directory: string,
  workFolder: string,
  spoolFile: string,
  { selection, coverage, env }: RunTestsOptions,
): RunnerPlan {
  return {
    command,
    directory,
    env: { ...process.env, PYTHONDONTWRITEBYTECODE: "1", ...env },
    selection: { files: [], namePattern: "", tags: [], tests: [], ...selection },
    coverage: coverage ?? false,
    workFolder,
    spoolFile,
  };
}

function outputOf(events: readonly TestEvent[]): string {
  return events
    .map(({ kind }) => (kind.case === "output" && !kind.value.stderr ? kind.value.text : ""))
    .join("");
}

export function keyOf(test: TestIdentity): string {
  return `${test.file} ${fullName(test)}${test.occurrence === 0 ? "" : ` #${test.occurrence}`}`;
}

/** The last word on each test. */
export function resultsOf(events: readonly TestEvent[]): Map<string, TestResult> {
  const results = new Map<string, TestResult>();
  for (const { kind } of events) {
    if (kind.case === "testEnded" && kind.value.test) {
      results.set(keyOf(kind.value.test), kind.value);
    }
  }
  return results;
}

/** How many tests ended so. */
export function countOf(results: ReadonlyMap<string, TestResult>, ...statuses: TestStatus[]): number {
  return [...results.values()].filter(({ status }) => statuses.includes(status)).length;
}

export function statusesOf(results: ReadonlyMap<string, TestResult>): Record<string, string> {
  return Object.fromEntries([...results].map(([name, { status }]) => [name, TestStatus[status]]));
}

/** Tests that began and did not end. */
export function unfinished(events: readonly TestEvent[]): string[] {
  const running = new Set<string>();
  for (const { kind } of events) {
    if (kind.case === "testStarted" && kind.value.test) {
      running.add(keyOf(kind.value.test));
    } else if (kind.case === "testEnded" && kind.value.test) {
      running.delete(keyOf(kind.value.test));
    }
  }
  return [...running];
}

/** The Python that has these packages, besides nothing. Made once and kept. */
export async function pythonWith(name: string, packages: readonly string[]): Promise<string> {
  const folder = join(cacheFolder, `venv-${name}`);
  const python = join(folder, "bin", "python");
  const done = join(folder, "installed.txt");
  await once(done, packages.join("\n"), async () => {
    await run("python3", ["-m", "venv", "--clear", folder]);
    await run(python, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...packages]);
  });
  return python;
}

/** The folder of a package's sources as they are published, tests included. */
export async function sourcesOf(python: string, name: string, version: string): Promise<string> {
  const folder = join(cacheFolder, "sdists", `${name}-${version}`);
  await once(`${folder}.txt`, version, async () => {
    const parent = dirname(folder);
    await mkdir(parent, { recursive: true });
    const what = ["--quiet", "--no-deps", "--no-binary", ":all:", `${name}==${version}`];
    await run(python, ["-m", "pip", "download", "--disable-pip-version-check", ...what, "-d", parent]);
    await run("tar", ["-xzf", `${folder}.tar.gz`, "-C", parent]);
  });
  return folder;
}

/** A folder with a Go module's sources, from the module cache, which is read-only. */
export async function goModule(path: string, version: string): Promise<string> {
  const { stdout } = await promisify(execFile)("go", ["mod", "download", "-json", `${path}@${version}`], {
    cwd: tmpdir(),
  });
  const downloaded: { Dir: string } = JSON.parse(stdout);
  return downloaded.Dir;
}

async function once(marker: string, content: string, make: () => Promise<void>): Promise<void> {
  if (existsSync(marker) && (await readFile(marker, "utf8")) === content) {
    return;
  }
  await make();
  await writeFile(marker, content);
}
