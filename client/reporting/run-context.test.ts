import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { buildFromEnvironment, gatherRunContext } from "./run-context.ts";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "toolplane-context-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

const git = (...args: string[]) =>
  execFileSync("git", ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", ...args], {
    cwd: folder,
    encoding: "utf8",
  }).trim();

it("the context of a working tree is what git says", async () => {
  git("init", "--quiet", "--initial-branch", "faster-cart");
  await writeFile(join(folder, "a.txt"), "1");
  git("add", "a.txt");
  git("commit", "--quiet", "--message", "First");
  const commit = git("rev-parse", "HEAD");
  expect(await gatherRunContext(folder, {})).toMatchObject({ commit, branch: "faster-cart", dirty: false });

  await writeFile(join(folder, "a.txt"), "2");
  expect(await gatherRunContext(folder, {})).toMatchObject({ commit, dirty: true });

  git("checkout", "--quiet", "--detach");
  expect(await gatherRunContext(folder, { GITHUB_REF_NAME: "main" })).toMatchObject({ branch: "main" });
});

it("without a repository the build's word counts", async () => {
  expect(
    await gatherRunContext(folder, { GIT_CEILING_DIRECTORIES: tmpdir(), CI_COMMIT_SHA: "abc" }),
  ).toMatchObject({
    commit: "abc",
    branch: "",
    dirty: false,
    platform: `${process.platform}/${process.arch}`,
  });
});

it.each([
  {
    env: {
      GITHUB_SHA: "a1",
      GITHUB_HEAD_REF: "",
      GITHUB_REF_NAME: "main",
      GITHUB_REPOSITORY: "acme/shop",
      GITHUB_RUN_ID: "7",
    },
    build: { commit: "a1", branch: "main", url: "https://github.com/acme/shop/actions/runs/7" },
  },
  {
    env: { CI_COMMIT_SHA: "b2", CI_COMMIT_REF_NAME: "next", CI_JOB_URL: "https://ci.example/1" },
    build: { commit: "b2", branch: "next", url: "https://ci.example/1" },
  },
  {
    env: { GIT_COMMIT: "c3", GIT_BRANCH: "origin/main", BUILD_URL: "https://jenkins.example/2" },
    build: { commit: "c3", branch: "origin/main", url: "https://jenkins.example/2" },
  },
  { env: {}, build: { commit: "", branch: "", url: "" } },
])("a build is known by $env", ({ env, build }) => {
  expect(buildFromEnvironment(env)).toEqual(build);
});
