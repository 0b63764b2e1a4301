import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, type JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { createToolplane, type NodeToolplane, type TestRunNews } from "@toolplane/client/node";
import { Role } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { TestChangeKind } from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import {
  type TestRun,
  TestRunEndReason,
  TestRunOrigin,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  ImportTestResultsRequestSchema,
  ReportFormat,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ensureReportersBuilt } from "../scripts/build.mjs";
import { createTestDatabaseUrl } from "../server/storage/testing.ts";
import { shopProject } from "./support/shop-project.ts";
import { startTestApp, type TestApp } from "./support/test-app.ts";

const operatorKey = "operator-key-for-tests-0123456789abcdef";

let folder: string;
let shop: ReturnType<typeof shopProject>;
/** Runs the project. */
let app: TestApp;
/** Another replica on the same database, which runs nothing. */
let other: TestApp;
let caller: NodeToolplane;
let reader: NodeToolplane;
let readerOfOther: NodeToolplane;
let readerKey: string;

/** What has to be closed at the end, last first. */
const closing: (() => unknown)[] = [];

beforeAll(async () => {
  await ensureReportersBuilt();
  folder = await mkdtemp(join(tmpdir(), "toolplane-test-runs-"));
  closing.push(() => rm(folder, { recursive: true, force: true }));
  shop = shopProject(folder);
  const databaseUrl = await createTestDatabaseUrl();
  const auth = { required: true, operator_key: { env: "OPERATOR_KEY" } };
  const start = async (testing: object) => {
    const started = await startTestApp({
      databaseUrl,
      config: JSON.stringify({ auth, testing }),
      env: { PATH: process.env["PATH"], OPERATOR_KEY: operatorKey },
    });
    closing.push(() => started.close());
    return started;
  };
  app = await start({ projects: [shop.config], max_concurrent_runs: 4 });
  other = await start({});
  const operator = connect(app, operatorKey);
  const keyOf = async (name: string, role: Role) =>
    (await operator.admin.createApiKey({ name, role })).secret;
  readerKey = await keyOf("reader", Role.READER);
  caller = connect(app, await keyOf("caller", Role.CALLER));
  reader = connect(app, readerKey);
  readerOfOther = connect(other, readerKey);
});

afterAll(async () => {
  for (const close of closing.toReversed()) {
    await close();
  }
});

function connect({ url }: TestApp, token: string): NodeToolplane {
  const toolplane = createToolplane({ url, token });
  closing.push(() => toolplane.close());
  return toolplane;
}

async function startRun(environment = "default"): Promise<TestRun> {
  const { run } = await caller.tests.startTestRun({ project: "shop", environment });
  expect.assert(run !== undefined);
  return run;
}

async function ending(id: string): Promise<TestRun> {
  const { run } = await reader.tests.getTestRun({ runId: id, wait: { seconds: 60n } });
  expect.assert(run?.end !== undefined);
  return run;
}

async function runToEnd(environment?: string): Promise<TestRun> {
  return await ending((await startRun(environment)).id);
}

/** All that a watch tells, to its end. */
async function watched(
  { watchTestRun }: NodeToolplane,
  id: string,
  onNews: (news: TestRunNews) => unknown = () => undefined,
): Promise<TestRunNews[]> {
  const told: TestRunNews[] = [];
  for await (const news of watchTestRun(id)) {
    told.push(news);
    await onNews(news);
  }
  return told;
}

const eventsOf = (told: readonly TestRunNews[]): TestEvent[] =>
  told.flatMap((news) => (news.kind === "event" ? [news.event] : []));

/** Opens the gate when the test that waits for it runs. */
const openingGate = async (news: TestRunNews) => {
  if (news.kind === "event" && news.event.kind.case === "testStarted") {
    if (news.event.kind.value.test?.name === "is ordered") {
      await shop.openGate();
    }
  }
};

function expectGapless(events: readonly TestEvent[]): void {
  expect(events.map(({ sequence }) => Number(sequence))).toEqual(events.map((_, index) => index + 1));
  expect(events[0]?.kind.case).toBe("created");
  expect(events.findIndex(({ kind }) => kind.case === "ended")).toBe(events.length - 1);
}

test("a run is watched while it runs, and its totals are those of its tests", async () => {
  await shop.closeGate();
  const { id } = await startRun("gated");

  const told = await watched(caller, id, openingGate);

  const events = eventsOf(told);
  expectGapless(events);
  const results = events.flatMap(({ kind }) => (kind.case === "testEnded" ? [kind.value] : []));
  expect(results.map(({ test: identity, status }) => [identity?.name, status])).toEqual([
    ["counts its items", TestStatus.PASSED],
    ["adds its prices", TestStatus.PASSED],
    ["knows discounts", TestStatus.SKIPPED],
    ["is ordered", TestStatus.PASSED],
  ]);
  const run = await ending(id);
  expect(run).toMatchObject({
    state: TestRunState.PASSED,
    origin: TestRunOrigin.SERVER,
    framework: "node-test",
    environment: "gated",
    counts: { total: 4, passed: 3, skipped: 1, failed: 0, errors: 0, notRun: 0, interrupted: 0 },
    end: { reason: TestRunEndReason.UNSPECIFIED, exitCode: 0 },
    lastSequence: BigInt(events.length),
  });
  // The gate was opened by what the watch told: it was live.
  expect(told.findIndex(({ kind }) => kind === "caught-up")).toBeLessThan(
    told.findIndex((news) => news.kind === "event" && news.event.kind.case === "ended"),
  );
  const progress = told.flatMap((news) => (news.kind === "progress" ? [news.progress] : []));
  expect(progress.length).toBeGreaterThan(0);
  expect(progress.every(({ sequence }) => sequence <= run.lastSequence)).toBe(true);
  const { results: kept } = await reader.tests.listTestResults({ runId: id });
  expect(kept.map(({ testId }) => testId).sort()).toEqual(results.map(({ testId }) => testId).sort());
});

test("a watch through another replica tells the same", async () => {
  await shop.closeGate();
  const { id } = await startRun("gated");
  const there = eventsOf(await watched(readerOfOther, id, openingGate));
  expectGapless(there);
  expect(there).toEqual(eventsOf(await watched(reader, id)));
});

test("a run is cancelled through another replica", async () => {
  await shop.closeGate();
  const { id } = await startRun("gated");
  const callerOfOther = connect(other, operatorKey);
  const told = await watched(reader, id, async (news) => {
    if (news.kind === "event" && news.event.kind.case === "testStarted") {
      if (news.event.kind.value.test?.name === "is ordered") {
        await callerOfOther.tests.cancelTestRun({ runId: id, message: "closed today" });
      }
    }
  });
  expectGapless(eventsOf(told));
  expect(await ending(id)).toMatchObject({
    state: TestRunState.CANCELLED,
    end: {
      reason: TestRunEndReason.CANCELLED,
      message: "closed today",
      runningTests: [{ name: "is ordered" }],
    },
    counts: { passed: 2, skipped: 1, interrupted: 1 },
  });
  const again = await caller.tests.cancelTestRun({ runId: id, message: "twice" });
  expect(again.run?.end?.message).toBe("closed today");
});

test("tests are run, watched and compared by calls of tools", async () => {
  const runByTool = async (environment: string) => {
    const started = await caller.callTool("toolplane.run-unit-tests", { project: "shop", environment });
    const run = at(started, "run", "id");
    expect.assert(typeof run === "string");
    return run;
  };
  const base = await runByTool("default");
  const head = await runByTool("wrong-prices");
  for (const [run, state] of [
    [base, "TEST_RUN_STATE_PASSED"],
    [head, "TEST_RUN_STATE_FAILED"],
  ]) {
    const told = await Array.fromAsync(
      caller.callToolStream("toolplane.watch-test-run", { run_id: run ?? "" }),
    );
    const events = told.flatMap((each) => at(each, "events", "events") ?? []);
    expect(at(events.at(-1), "ended", "state")).toBe(state);
    expect(at(await caller.callTool("toolplane.get-test-run", { run_id: run ?? "" }), "run", "state")).toBe(
      state,
    );
  }
  const compared = await caller.callTool("toolplane.compare-test-runs", {
    base: { run_ids: [base] },
    head: { run_ids: [head] },
    markdown: true,
  });
  expect(compared).toMatchObject({
    comparison: { summary: { regression: true, newlyFailing: 1, unchanged: 3 } },
    markdown: expect.stringContaining("adds its prices"),
  });
});

test("two runs are compared: what broke, since when, and what to do", async () => {
  const [base, head] = [await runToEnd(), await runToEnd("wrong-prices")];
  expect(head).toMatchObject({ state: TestRunState.FAILED, counts: { total: 4, passed: 2, failed: 1 } });
  const compare = async (from: TestRun, to: TestRun) => {
    const { comparison } = await reader.tests.compareTestRuns({
      base: { runIds: [from.id] },
      head: { runIds: [to.id] },
    });
    expect.assert(comparison !== undefined);
    return comparison;
  };

  const broken = await compare(base, head);
  expect(broken.summary).toMatchObject({ regression: true, newlyFailing: 1, fixed: 0, added: 0, removed: 0 });
  expect(broken.changes[0]).toMatchObject({
    kind: TestChangeKind.NEWLY_FAILING,
    test: { name: "adds its prices" },
    failure: { message: expect.stringContaining("6") },
  });
  expect(broken.recommendations.length).toBeGreaterThan(0);

  const mended = await compare(head, base);
  expect(mended.summary).toMatchObject({ regression: false, improvement: true, fixed: 1 });
  expect((await compare(base, base)).changes).toEqual([]);
});

test("histories tell what a test and its project did, run by run", async () => {
  const { id } = await runToEnd("wrong-prices");
  const { history: ofTest } = await reader.tests.getTestHistory({ project: "shop", test: "adds its prices" });
  expect.assert(ofTest.case === "test");
  expect(ofTest.value.entries.find(({ runId }) => runId === id)).toMatchObject({ status: TestStatus.FAILED });
  expect(ofTest.value.runs).toBe(ofTest.value.entries.filter(({ excluded }) => !excluded).length);

  const { history: ofProject } = await readerOfOther.tests.getTestHistory({ project: "shop" });
  expect.assert(ofProject.case === "project");
  expect(ofProject.value.points.find(({ runId }) => runId === id)).toMatchObject({
    state: TestRunState.FAILED,
    counts: { failed: 1 },
  });
});

test("a run that is exported and imported again has the same results", async () => {
  const run = await runToEnd("wrong-prices");
  for (const format of [ReportFormat.JUNIT_XML, ReportFormat.CTRF]) {
    const parts = await Array.fromAsync(reader.tests.exportTestResults({ runId: run.id, format }));
    const project = `copy-${randomUUID()}`;
    const { run: copy, problems } = await caller.tests.importTestResults(
      (async function* () {
        yield create(ImportTestResultsRequestSchema, {
          header: { run: { project }, fileName: parts[0]?.fileName ?? "" },
        });
        for (const { data } of parts) {
          yield create(ImportTestResultsRequestSchema, { data });
        }
      })(),
    );
    expect(problems).toEqual([]);
    expect(copy).toMatchObject({
      origin: TestRunOrigin.IMPORT,
      state: TestRunState.FAILED,
      counts: run.counts,
      project,
    });
  }
});

test("a reader's key may watch but not start, report or cancel, nor have tools do it", async () => {
  const { id } = await runToEnd();
  expect(eventsOf(await watched(reader, id)).length).toBeGreaterThan(0);
  const denied = { code: Code.PermissionDenied };
  await expect(reader.tests.startTestRun({ project: "shop" })).rejects.toMatchObject(denied);
  await expect(reader.tests.createTestRun({ project: "shop" })).rejects.toMatchObject(denied);
  await expect(reader.tests.cancelTestRun({ runId: id })).rejects.toMatchObject(denied);
  await expect(reader.callTool("toolplane.run-unit-tests", { project: "shop" })).rejects.toMatchObject(
    denied,
  );
});

test("server-sent events need a key where callers have to have one", async () => {
  const { id, lastSequence } = await runToEnd();
  for (const { url } of [app, other]) {
    const stream = `${url}/test-runs/${id}/events`;
    const stranger = await fetch(stream);
    expect([stranger.status, stranger.headers.get("www-authenticate")]).toEqual([
      401,
      expect.stringContaining("Bearer"),
    ]);
    expect(await stranger.json()).toMatchObject({ code: "unauthenticated" });
    const wrong = await fetch(stream, { headers: { authorization: "Bearer nonsense" } });
    expect(wrong.status).toBe(401);
    await wrong.body?.cancel();

    const headers = { authorization: `Bearer ${readerKey}` };
    const text = await (await fetch(stream, { headers })).text();
    const ids = Array.from(text.matchAll(/^id: (\d+)$/gm), ([, sequence]) => Number(sequence));
    expect(ids).toEqual(Array.from({ length: Number(lastSequence) }, (_, index) => index + 1));
  }
});

test("everything for those who run and read tests is a tool with schemas", async () => {
  const { hits } = await caller.registry.searchTools({ query: "run unit tests", pageSize: 3 });
  expect(hits.map(({ tool }) => tool?.alias)).toContain("toolplane.run-unit-tests");
  const names = [
    "cancel-test-run",
    "compare-test-runs",
    "export-test-results",
    "get-test-coverage",
    "get-test-history",
    "get-test-run",
    "list-test-projects",
    "list-test-results",
    "list-test-runs",
    "run-unit-tests",
    "watch-test-run",
  ];
  for (const name of names) {
    const { tool } = await reader.registry.getTool({ name: `toolplane.${name}` });
    expect(tool).toMatchObject({
      description: expect.stringMatching(/\w/),
      inputSchema: { type: "object", properties: expect.anything() },
      outputSchema: { type: "object" },
    });
  }
  const { tools } = await reader.registry.listTools({
    filter: { tags: ["testing"], service: "toolplane" },
    pageSize: 100,
  });
  expect(tools.map(({ alias }) => alias).sort()).toEqual(names.map((name) => `toolplane.${name}`));
});

test("projects are listed where they can be run and where they have runs", async () => {
  const { id } = await runToEnd();
  const find = async ({ tests }: NodeToolplane) =>
    (await tests.listProjects({ pageSize: 1_000 })).projects.find(({ name }) => name === "shop");
  expect(await find(reader)).toMatchObject({
    runnable: true,
    runner: "node-test",
    environments: ["default", "wrong-prices", "gated"],
    latestRun: { id },
  });
  expect(await find(readerOfOther)).toMatchObject({ latestRun: { id } });
});

/** What stands at a path in a message, as JSON. */
function at(value: JsonValue | undefined, ...path: readonly string[]): JsonValue | undefined {
  return path.reduce<JsonValue | undefined>(
    (inner, name) =>
      typeof inner === "object" && inner !== null && !Array.isArray(inner) ? inner[name] : undefined,
    value,
  );
}
