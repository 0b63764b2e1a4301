import { execFile } from "node:child_process";
import { hostname } from "node:os";
import { promisify } from "node:util";
import { create } from "@bufbuild/protobuf";
import type { RunnerKind } from "@toolplane/client/runners";
import {
  type TestRunContext,
  TestRunContextSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { TestProjectSettings } from "../../config/testing.ts";

/** How long a tool may take to answer. What it has not said by then stays unknown. */
const ANSWER_MS = 5_000;

/** What tells the version of the runtime, and where in its answer that is. `command` may be anything. */
const RUNTIMES: Readonly<Record<RunnerKind, readonly [string, readonly string[], RegExp] | undefined>> = {
  vitest: ["node", ["--version"], /^v(\S+)/],
  jest: ["node", ["--version"], /^v(\S+)/],
  "node-test": ["node", ["--version"], /^v(\S+)/],
  pytest: ["python3", ["--version"], /^Python (\S+)/],
  "go-test": ["go", ["version"], /^go version go(\S+)/],
  command: undefined,
};

/** What is tested, and where. */
export async function readContext(
  { directory, runner }: Pick<TestProjectSettings, "directory" | "runner">,
  labels: Readonly<Record<string, string>>,
  env: Readonly<Record<string, string>>,
): Promise<TestRunContext> {
  // Only looks: takes no lock that somebody else may need.
  const quiet = { ...env, GIT_OPTIONAL_LOCKS: "0" };
  const ask = (program: string, args: readonly string[]) => answer(directory, quiet, program, args);
  const [commit, branch, changes, runtime] = await Promise.all([
    ask("git", ["rev-parse", "HEAD"]),
    ask("git", ["symbolic-ref", "--short", "--quiet", "HEAD"]),
    ask("git", ["status", "--porcelain", "--untracked-files=no"]),
    readRuntime(runner, ask),
  ]);
  return create(TestRunContextSchema, {
    commit: commit.slice(0, 128),
    branch: branch.slice(0, 256),
    dirty: changes !== "",
    platform: `${process.platform}/${process.arch}`,
    runtime: runtime.slice(0, 128),
    host: hostname().slice(0, 256),
    labels: { ...labels },
  });
}

async function readRuntime(
  runner: RunnerKind,
  ask: (program: string, args: readonly string[]) => Promise<string>,
): Promise<string> {
  const how = RUNTIMES[runner];
  if (how === undefined) {
    return "";
  }
  const [program, args, pattern] = how;
  const [, version] = pattern.exec(await ask(program, args)) ?? [];
  return version === undefined ? "" : `${program === "python3" ? "python" : program} ${version}`;
}

/** What a tool prints. Empty: it is not there, has nothing to say, or gave no answer in time. */
async function answer(
  directory: string,
  env: Readonly<Record<string, string>>,
  program: string,
  args: readonly string[],
): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(program, args, {
      cwd: directory,
      env,
      timeout: ANSWER_MS,
      killSignal: "SIGKILL",
      maxBuffer: 16 * 1024 * 1024,
    });
    return stdout.trim();
  } catch {
    return "";
  }
}
