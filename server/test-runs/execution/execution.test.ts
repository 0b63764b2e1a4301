import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Runner, RunnerError, type RunnerPlan } from "@toolplane/client/runners";
import { type DomainError, systemClock } from "@toolplane/framework";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import {
  type TestRun,
  TestRunEndReason,
  TestRunOrigin,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { StartTestRunRequestSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { afterAll, afterEach, beforeAll, beforeEach, expect, onTestFinished, test } from "vitest";
import type { TestProjectSettings } from "../../config/testing.ts";
import type { Database } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { allEvents, ended, reported } from "../test-support/events.ts";
import { openReplica, type Replica } from "../test-support/open-replica.ts";
import { createExecution, type Execution, type ExecutionOptions } from "./execution.ts";
import { createTestLookup } from "./test-lookup.ts";

let database: Database;
let folder: string;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.close());
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "toolplane-execution-"));
});
afterEach(() => rm(folder, { recursive: true, maxRetries: 5 }));

/** Runs the command of the project, which reports with `spool(event)`, and takes any selection but tags. */
function testRunner(plans: RunnerPlan[]): Runner {
  return {
    kind: "vitest",
    recognises: () => true,
    async prepare(plan) {
      plans.push(plan);
      if (plan.selection.tags.length > 0) {
        throw new RunnerError("tags", "there are no tags");
      }
      const [, , source = ""] = plan.command;
      const reporting = `const spool = (event) => require("node:fs").appendFileSync(${JSON.stringify(plan.spoolFile)}, JSON.stringify(event) + "\\n");`;
      return {
        argv: source ? [process.execPath, "-e", reporting + source] : plan.command,
        env: {},
        reports: [],
        coverageFiles: [],
        verdictCodes: [0, 1],
      };
    },
  };
}

const testEnded = (name: string, status = "TEST_STATUS_PASSED") =>
  `spool({ testEnded: { test: { file: "a.test.ts", name: ${JSON.stringify(name)} }, status: ${JSON.stringify(status)} } });`;

const forever = "setInterval(() => {}, 1000);";

/** A project whose runner is a program of Node's. */
function project(source: string, more: Partial<TestProjectSettings> = {}): TestProjectSettings {
  return {
    // Another one for every test: they share a database.
    name: `project-${randomUUID()}`,
    description: "a project",
    runner: "vitest",
    directory: folder,
    command: ["node", "-e", source],
    environments: new Map([["default", { variables: {}, passed: [] }]]),
    timeoutMs: 60_000,
    silenceMs: 60_000,
    maxConcurrentRuns: 1,
    reports: [],
    coverageFiles: [],
    ...more,
  };
}

interface Opened extends Replica {
  readonly execution: Execution;
  readonly plans: readonly RunnerPlan[];
  /** Starts a run, of the only project unless the request names another one. */
  start(request?: MessageInitShape<typeof StartTestRunRequestSchema>): Promise<TestRun>;
  ending(run: TestRun): Promise<TestRun>;
}

async function open(
  projects: readonly TestProjectSettings[],
  options: Partial<ExecutionOptions["settings"]> & { readonly env?: NodeJS.ProcessEnv } = {},
): Promise<Opened> {
  const replica = await openReplica(database);
  const plans: RunnerPlan[] = [];
  const { env, ...settings } = options;
  const execution = createExecution({
    ...replica,
    lookup: createTestLookup(database),
    settings: {
      projects: new Map(projects.map((each) => [each.name, each])),
      maxConcurrentRuns: 2,
      maxQueuedRuns: 100,
      ...settings,
    },
    clock: systemClock,
    logger: silentLogger,
    env: env ?? { PATH: process.env["PATH"] },
    runnerOf: () => testRunner(plans),
  });
  onTestFinished(() => execution.close());
  return {
    ...replica,
    execution,
    plans,
    start: (request) =>
      execution.startTestRun(
        create(StartTestRunRequestSchema, { project: projects[0]?.name ?? "", ...request }),
        "user:ada",
      ),
    ending: (run) => replica.runs.waitForEnd(run.id, 60_000, new AbortController().signal),
  };
}

const refusal = (promise: Promise<unknown>): Promise<DomainError["init"]> =>
  promise.then(
    () => expect.unreachable("it was accepted"),
    (error: DomainError) => error.init,
  );

async function numberIn(name: string): Promise<number> {
  const path = join(folder, name);
  await expect.poll(() => existsSync(path) && readFileSync(path, "utf8")).toMatch(/^\d+$/);
  return Number(readFileSync(path, "utf8"));
}

function lives(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
}

test("a run of a project waits for its turn, runs, and has a verdict", async () => {
  const { start, ending, eventLog } = await open([
    project(
      `${testEnded("adds")} ${testEnded("removes", "TEST_STATUS_FAILED")} console.log("2 tests"); process.exitCode = 1;`,
    ),
  ]);

  const queued = await start({ labels: { build: "7" } });
  const over = await ending(queued);

  expect(queued).toMatchObject({
    state: TestRunState.QUEUED,
    origin: TestRunOrigin.SERVER,
    environment: "default",
    framework: "vitest",
    createdBy: "user:ada",
  });
  expect(over).toMatchObject({
    state: TestRunState.FAILED,
    counts: { total: 2, passed: 1, failed: 1 },
    end: { reason: TestRunEndReason.UNSPECIFIED, exitCode: 1 },
    context: { labels: { build: "7" }, platform: `${process.platform}/${process.arch}` },
  });
  const kinds = (await allEvents(eventLog, over.id)).map(({ kind }) => kind.case);
  expect(kinds.slice(0, 2)).toEqual(["created", "started"]);
  expect(kinds.at(-1)).toBe("ended");
  expect(kinds.slice(2, -1).sort()).toEqual(["output", "testEnded", "testEnded"]);
});

test("a run knows the commit, the branch and whether something is not committed", async () => {
  const git = (...args: string[]) =>
    execFileSync("git", ["-c", "user.name=a", "-c", "user.email=a@example.com", ...args], {
      cwd: folder,
      encoding: "utf8",
    });
  git("init", "--quiet", "--initial-branch=trunk");
  await writeFile(join(folder, "file"), "1");
  git("add", "file");
  git("commit", "--quiet", "--message=first");
  const { start, ending } = await open([project("")]);

  const clean = await ending(await start());
  await writeFile(join(folder, "file"), "2");
  const dirty = await ending(await start());

  const commit = git("rev-parse", "HEAD").trim();
  expect(clean.context).toMatchObject({
    commit,
    branch: "trunk",
    dirty: false,
    runtime: expect.stringMatching(/^node \d/),
  });
  expect(dirty.context).toMatchObject({ commit, branch: "trunk", dirty: true });
});

test("a runner gets of the server's environment what is allowed, and nothing else", async () => {
  await mkdir(join(folder, "node_modules", ".bin"), { recursive: true });
  const { start, ending } = await open(
    [
      project(`require("node:fs").writeFileSync("env.json", JSON.stringify(process.env))`, {
        environments: new Map([["staging", { variables: { MINE: "1" }, passed: ["TOKEN", "ABSENT"] }]]),
      }),
    ],
    {
      env: {
        PATH: process.env["PATH"],
        HOME: "/home/ada",
        TOKEN: "t",
        TOOLPLANE_DATABASE_URL: "postgres://secret",
        TOOLPLANE_OPERATOR_KEY: "secret",
        NODE_OPTIONS: "--no-warnings",
      },
    },
  );

  await ending(await start());

  expect(JSON.parse(readFileSync(join(folder, "env.json"), "utf8"))).toEqual({
    PATH: `${join(folder, "node_modules/.bin")}:${process.env["PATH"]}`,
    HOME: "/home/ada",
    TOKEN: "t",
    MINE: "1",
    TOOLPLANE_TEST_RUN: expect.any(String),
  });
});

test("an unknown project or environment is answered with those that there are", async () => {
  const known = project("");
  const { start, execution } = await open([known]);

  expect(await refusal(start({ project: "webb" }))).toMatchObject({
    code: Code.NotFound,
    reason: "TEST_PROJECT_NOT_FOUND",
    message: expect.stringContaining(`"${known.name}"`),
  });
  expect(await refusal(start({ environment: "stagin" }))).toMatchObject({
    code: Code.NotFound,
    reason: "TEST_ENVIRONMENT_NOT_FOUND",
    message: expect.stringContaining('"default"'),
  });
  expect(execution.projects()).toEqual([
    { name: known.name, runner: "vitest", description: "a project", environments: ["default"] },
  ]);
});

test("a selection that cannot be is refused with the field", async () => {
  await writeFile(join(folder, "there.ts"), "");
  const { start, ending } = await open([project("")]);
  const fields = async (
    selection: NonNullable<MessageInitShape<typeof StartTestRunRequestSchema>["selection"]>,
  ) => (await refusal(start({ selection }))).fields?.map(({ field }) => field);

  expect(
    await fields({
      files: ["there.ts", "-x", "../up", "/etc/passwd", "a/../../b", "gone.ts", "src/*.ts", "a\0"],
    }),
  ).toEqual([1, 2, 3, 4, 5, 7].map((index) => `selection.files[${index}]`));
  await symlink("/etc", join(folder, "out"));
  await symlink(join(folder, "there.ts"), join(folder, "in.ts"));
  expect(
    await fields({
      // Braces and escapes come to folders above only when the runner looks for files.
      files: [
        "{..,a}/*.ts",
        "{.,a}{.,b}/*",
        ".{,a}./*",
        ".\\./*.ts",
        "out",
        "out/passwd",
        "a/[x]/.",
        "\ud800",
      ],
    }),
  ).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((index) => `selection.files[${index}]`));
  const fine = ["in.ts", ".", "./src/*.ts", "**/*.{test,spec}.ts", "src/{.a,b}*.test.{js,ts}"];
  expect((await ending(await start({ selection: { files: fine } }))).end?.reason).toBe(
    TestRunEndReason.UNSPECIFIED,
  );
  expect(await fields({ namePattern: "(" })).toEqual(["selection.name_pattern"]);
  expect(await fields({ namePattern: "a\0" })).toEqual(["selection.name_pattern"]);
  expect(await fields({ tags: ["a\0"] })).toEqual(["selection.tags[0]"]);
  expect(await fields({ tags: ["slow"] })).toEqual(["selection.tags"]);
  expect(await fields({ testIds: ["0".repeat(32)] })).toEqual(["selection.test_ids[0]"]);
  expect((await refusal(start({ selection: { failedInRun: "unknown" } }))).code).toBe(Code.NotFound);
  expect((await refusal(start({ selection: { failedInRun: "\0" } }))).code).toBe(Code.NotFound);
});

test("tests that a reporter says to be in files elsewhere are not run", async () => {
  const { start, runs, execution } = await open([project("")]);
  const [{ name } = { name: "" }] = execution.projects();
  for (const file of ["../../elsewhere.test.mjs", "/tmp/elsewhere.test.mjs", "--import=/tmp/elsewhere.mjs"]) {
    const run = await runs.create(reported({ project: name }));
    const result = ended("breaks", TestStatus.FAILED);
    if (result.kind.case === "testEnded" && result.kind.value.test) {
      Object.assign(result.kind.value.test, { project: name, file });
    }
    await runs.append(run.id, "", 1, [result]);
    await runs.finish(run.id, { reason: TestRunEndReason.UNSPECIFIED, message: "" });
    const { fields } = await refusal(start({ selection: { failedInRun: run.id } }));
    expect(fields?.map(({ field }) => field)).toEqual(["selection.failed_in_run"]);
  }
});

test("tests that failed, and tests by their ids, are looked up for the runner", async () => {
  const { start, ending, runs, plans, execution } = await open([
    project("", { name: `shop-${randomUUID()}` }),
  ]);
  const [{ name: projectName } = { name: "" }] = execution.projects();
  const before = await runs.create(reported({ project: projectName }));
  const results = [ended("adds"), ended("breaks", TestStatus.FAILED), ended("errs", TestStatus.ERROR)];
  for (const { kind } of results) {
    if (kind.case === "testEnded" && kind.value.test) {
      kind.value.test.project = projectName;
    }
  }
  await runs.append(before.id, "", 1, results);
  await runs.finish(before.id, { reason: TestRunEndReason.UNSPECIFIED, message: "" });

  const rerun = await ending(await start({ selection: { failedInRun: before.id } }));
  expect(plans.at(-1)?.selection.tests.map(({ name }) => name)).toEqual(["breaks", "errs"]);
  expect(rerun.selection?.failedInRun).toBe(before.id);

  const [adds] = results;
  const testId = adds?.kind.case === "testEnded" ? adds.kind.value.testId : "";
  await ending(await start({ selection: { testIds: [testId] } }));
  expect(plans.at(-1)?.selection.tests.map(({ name }) => name)).toEqual(["adds"]);
});

test("a repeated request starts one run", async () => {
  const { start } = await open([project("")]);
  const requestId = randomUUID();

  const first = await start({ requestId, labels: { a: "1", b: "2" } });

  expect((await start({ requestId, labels: { b: "2", a: "1" } })).id).toBe(first.id);
  expect((await refusal(start({ requestId }))).code).toBe(Code.InvalidArgument);
});

test("no more runs of a project run at once than it allows, on all replicas together", async () => {
  const shared = project(`
    const { writeFileSync, rmSync } = require("node:fs");
    try { writeFileSync("lock", "", { flag: "wx" }); } catch { process.exit(1); }
    setTimeout(() => rmSync("lock"), 100);`);
  const here = await open([shared]);
  const there = await open([shared]);

  const started = await Promise.all([here, there, here, there, here].map(({ start }) => start()));
  const over = await Promise.all(started.map((run) => here.ending(run)));

  expect(over.map(({ state, end }) => [state, end?.exitCode])).toEqual(
    over.map(() => [TestRunState.PASSED, 0]),
  );
});

test("more runs than may wait are refused", async () => {
  const busy = project(forever);
  const { start, runs, ending } = await open([busy], { maxQueuedRuns: 1 });
  const running = await start();
  await expect.poll(async () => (await runs.get(running.id)).state).toBe(TestRunState.RUNNING);
  const waiting = await start();

  expect((await refusal(start())).code).toBe(Code.ResourceExhausted);

  expect((await runs.cancel(waiting.id, "")).state).toBe(TestRunState.CANCELLED);
  await runs.cancel(running.id, "");
  await ending(running);
});

test("a run is cancelled from another replica, with all that its runner has started", async () => {
  const here = await open([
    project(`
      require("node:fs").writeFileSync("runner", String(process.pid));
      require("node:child_process").spawn(process.execPath, ["-e",
        "require('node:fs').writeFileSync('child', String(process.pid)); setInterval(() => {}, 1000)",
      ], { detached: true, stdio: "ignore" }).unref();
      ${forever}`),
  ]);
  const there = await openReplica(database);
  const run = await here.start();
  const pids = [await numberIn("runner"), await numberIn("child")];

  await there.runs.cancel(run.id, "no longer needed");

  expect(await here.ending(run)).toMatchObject({
    state: TestRunState.CANCELLED,
    end: { reason: TestRunEndReason.CANCELLED, message: "no longer needed" },
  });
  expect(pids.filter(lives)).toEqual([]);
});

test("runs end with an error when their server is stopped", async () => {
  const { start, execution, runs } = await open([
    project(
      `require("node:fs").writeFileSync("runner", String(process.pid)); ${testEnded("first")} ${forever}`,
    ),
  ]);
  const run = await start();
  const pid = await numberIn("runner");
  await expect.poll(async () => (await runs.get(run.id)).counts?.passed).toBe(1);

  await execution.close();

  expect(await runs.get(run.id)).toMatchObject({
    state: TestRunState.ERROR,
    end: { reason: TestRunEndReason.SERVER_LOST, message: "the server was stopped" },
    counts: { passed: 1 },
  });
  expect(lives(pid)).toBe(false);
});

test("a run whose lease was lost ends its runner and says nothing more", async () => {
  const { start, ending, runs } = await open([
    project(
      `require("node:fs").writeFileSync("runner", String(process.pid)); setInterval(() => console.log("x"), 10);`,
    ),
  ]);
  const run = await start();
  const pid = await numberIn("runner");

  await runs.finish(run.id, { reason: TestRunEndReason.SERVER_LOST, message: "its server is silent" });

  await expect.poll(() => lives(pid)).toBe(false);
  expect((await ending(run)).end?.message).toBe("its server is silent");
});

test("a runner that is not there is an error that says what to do", async () => {
  const { start, ending } = await open([project("", { command: ["no-such-runner"] })]);

  expect(await ending(await start())).toMatchObject({
    state: TestRunState.ERROR,
    end: {
      reason: TestRunEndReason.NOT_STARTED,
      message: expect.stringContaining("no-such-runner was not found"),
    },
  });
});

test("a run takes no longer than asked for", async () => {
  const { start, ending } = await open([project(forever)]);

  const over = await ending(await start({ timeout: { nanos: 300_000_000 } }));

  expect(over).toMatchObject({ state: TestRunState.ERROR, end: { reason: TestRunEndReason.TIMEOUT } });
});

test("events that make no sense, and those that only the server may write, become problems", async () => {
  const { start, ending, eventLog } = await open([
    project(`spool({ ended: { id: "x" } }); spool({ created: { id: "x" } }); spool({ testEnded: {} });
      spool({ output: { text: "x".repeat(70000) } }); console.log("fine"); ${testEnded("adds")}`),
  ]);

  const over = await ending(await start());

  expect(over.state).toBe(TestRunState.PASSED);
  const events = await allEvents(eventLog, over.id);
  expect(
    events.flatMap(({ kind }) => (kind.case === "problem" ? [kind.value.message.split("\n")[0]] : [])),
  ).toEqual([
    'what the reporter sent as "ended" was left out: only the server says that',
    'what the reporter sent as "created" was left out: only the server says that',
    expect.stringContaining("test_ended.test: value is required"),
    expect.stringContaining("output.text"),
  ]);
  expect(over.counts).toMatchObject({ total: 1, passed: 1 });
});

test("runs whose runners are killed at random keep what was reported and end exactly once", async () => {
  const kills = Array.from({ length: 20 }, () => 1 + Math.floor(Math.random() * 300));
  const projects = kills.map((kill) =>
    project(`for (let i = 1; ; i += 1) {
      spool({ testEnded: { test: { file: "a.test.ts", name: "test " + i }, status: "TEST_STATUS_PASSED" } });
      if (i === ${kill}) process.kill(process.pid, "SIGKILL");
    }`),
  );
  const { start, ending, eventLog } = await open(projects);

  const runs = await Promise.all(projects.map(({ name }) => start({ project: name })));

  for (const [index, run] of runs.entries()) {
    const over = await ending(run);
    expect(over).toMatchObject({
      state: TestRunState.ERROR,
      end: { reason: TestRunEndReason.CRASHED, signal: "SIGKILL" },
    });
    expect(over.counts?.passed).toBeGreaterThanOrEqual(kills[index] ?? 0);
    const kinds = (await allEvents(eventLog, run.id)).map(({ kind }) => kind.case);
    expect(kinds.filter((kind) => kind === "ended")).toHaveLength(1);
    expect(kinds.at(-1)).toBe("ended");
  }
});
