import { execFile } from "node:child_process";
import { hostname } from "node:os";
import { promisify } from "node:util";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TestRunContextSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";

export type TestRunContextInit = MessageInitShape<typeof TestRunContextSchema>;

type Environment = Readonly<Record<string, string | undefined>>;

/** How long git may take before its word is done without, in milliseconds. */
const GIT_TIMEOUT_MS = 3_000;

/** What is tested, and where: of a working tree as git sees it, and of the build that the environment tells of. */
export async function gatherRunContext(directory: string, env: Environment): Promise<TestRunContextInit> {
  const [head, name, status] = await Promise.all([
    git(directory, "rev-parse", "HEAD"),
    git(directory, "symbolic-ref", "--quiet", "--short", "HEAD"),
    git(directory, "status", "--porcelain", "--untracked-files=no"),
  ]);
  const build = buildFromEnvironment(env);
  return {
    // The tree in front of us knows better than the build what it holds.
    commit: (head ?? build.commit).slice(0, 128),
    // Builds check out a commit, not a branch.
    branch: (build.branch || (name ?? "")).slice(0, 256),
    dirty: status !== undefined && status !== "",
    platform: `${process.platform}/${process.arch}`,
    runtime: `node ${process.versions.node}`,
    host: hostname().slice(0, 256),
    buildUrl: build.url.slice(0, 2048),
  };
}

/** What well-known builders say of the build that this process is part of; empty where they say nothing. */
export function buildFromEnvironment(env: Environment): { commit: string; branch: string; url: string } {
  const first = (...names: string[]) => names.map((name) => env[name]).find((value) => value) ?? "";
  const github =
    env["GITHUB_RUN_ID"] && env["GITHUB_REPOSITORY"]
      ? `${first("GITHUB_SERVER_URL") || "https://github.com"}/${env["GITHUB_REPOSITORY"]}/actions/runs/${env["GITHUB_RUN_ID"]}`
      : "";
  return {
    commit: first(
      "GITHUB_SHA",
      "CI_COMMIT_SHA",
      "GIT_COMMIT",
      "BUILDKITE_COMMIT",
      "CIRCLE_SHA1",
      "BUILD_SOURCEVERSION",
    ),
    // Of a pull request, its own branch rather than the merge that is tested.
    branch: first(
      "GITHUB_HEAD_REF",
      "GITHUB_REF_NAME",
      "CI_COMMIT_REF_NAME",
      "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME",
      "GIT_BRANCH",
      "BUILDKITE_BRANCH",
      "CIRCLE_BRANCH",
      "BUILD_SOURCEBRANCHNAME",
    ),
    url: github || first("CI_JOB_URL", "BUILDKITE_BUILD_URL", "CIRCLE_BUILD_URL", "BUILD_URL"),
  };
}

/** What git prints; undefined where there is no git, no repository, or no answer in time. */
async function git(directory: string, ...args: string[]): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)("git", args, {
      cwd: directory,
      timeout: GIT_TIMEOUT_MS,
      maxBuffer: 16 * 1024 * 1024,
      // Looking at a tree must not lock it.
      env: { ...process.env, GIT_OPTIONAL_LOCKS: "0" },
    });
    return stdout.trim();
  } catch {
    return undefined;
  }
}
