import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { BadRequestSchema, ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunOrigin, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { TestRunService } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { sql } from "kysely";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { ended, event, identity, reported, started } from "./test-support/events.ts";
import { openReplica } from "./test-support/open-replica.ts";
import { serveTestRuns } from "./test-support/serve-test-runs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

beforeEach(async () => {
  await sql`TRUNCATE test_runs, test_results, test_coverage, test_cases`.execute(database.kysely);
});

afterAll(() => database.close());

async function open(projects: Parameters<typeof serveTestRuns>[1] = []) {
  const replica = await openReplica(database);
  const server = await serveTestRuns(replica, projects);
  const client = createClient(TestRunService, createGrpcTransport({ baseUrl: server.url }));
  return { replica, client };
}

async function failureOf(call: Promise<unknown>) {
  const error = ConnectError.from(
    await call.then(() => new Error("no failure")).catch((reason: unknown) => reason),
  );
  const [info] = error.findDetails(ErrorInfoSchema);
  return {
    code: error.code,
    reason: info?.reason,
    metadata: info?.metadata,
    fields: error
      .findDetails(BadRequestSchema)
      .flatMap(({ fieldViolations }) => fieldViolations.map(({ field }) => field)),
  };
}

test("a run is created, filled, ended and looked at over the wire", async () => {
  const { client } = await open();
  const { run, silenceTimeout } = await client.createTestRun({
    project: "shop",
    framework: "vitest",
    context: { commit: "abc", branch: "main", labels: { ci: "yes" } },
  });
  expect(silenceTimeout?.seconds).toBe(60n);
  expect(run).toMatchObject({ environment: "default", createdBy: "anonymous", context: { commit: "abc" } });
  const runId = run?.id ?? "";
  expect(
    await client.appendTestEvents({
      runId,
      firstPosition: 1n,
      events: [started("b"), ended("b", TestStatus.FAILED), ended("a"), ended("c")],
    }),
  ).toMatchObject({ acknowledgedPosition: 4n, cancelled: false });
  const waiting = client.getTestRun({ runId, wait: { seconds: 60n } });
  expect((await client.getTestRun({ runId })).run?.state).toBe(TestRunState.RUNNING);
  const finish = { runId, lastPosition: 4n, exitCode: 1 };
  expect(await failureOf(client.finishTestRun({ ...finish, lastPosition: 5n }))).toMatchObject({
    code: Code.OutOfRange,
    reason: "POSITION_GAP",
    metadata: { next_position: "5" },
  });
  const over = (await client.finishTestRun(finish)).run;
  expect(over).toMatchObject({ state: TestRunState.FAILED, counts: { passed: 2, failed: 1 } });
  expect((await waiting).run).toEqual(over);

  const { results } = await client.listTestResults({ runId });
  expect(results.map(({ test: which, status }) => [which?.name, status])).toEqual([
    ["b", TestStatus.FAILED],
    ["a", TestStatus.PASSED],
    ["c", TestStatus.PASSED],
  ]);
  expect(results[0]?.attempts[0]?.failures[0]?.message).toBe("b broke");
  expect(results[0]?.testId).toMatch(/^[0-9a-f]{32}$/);
  const only = await client.listTestResults({ runId, filter: { testIds: [results[1]?.testId ?? ""] } });
  expect(only.results).toEqual([results[1]]);
});

test("positions and ids that cannot be are the caller's mistake", async () => {
  const { client } = await open();
  const runId = (await client.createTestRun({ project: "shop" })).run?.id ?? "";
  for (const firstPosition of [2n ** 53n, 2n ** 63n - 1n]) {
    for (const events of [[], [started("a")]]) {
      const refused = client.appendTestEvents({ runId, firstPosition, events });
      expect(await failureOf(refused)).toMatchObject({
        code: Code.InvalidArgument,
        fields: ["first_position"],
      });
    }
  }
  const lastPosition = 2n ** 63n - 1n;
  expect((await failureOf(client.finishTestRun({ runId, lastPosition }))).code).toBe(Code.InvalidArgument);
  const unknown = { runId: "a\0b" };
  expect((await failureOf(client.getTestRun(unknown))).code).toBe(Code.NotFound);
  expect((await failureOf(client.appendTestEvents(unknown))).code).toBe(Code.NotFound);
  expect((await failureOf(client.listTestResults(unknown))).code).toBe(Code.NotFound);
});

test("runs are found by what they are, and paged, the newest first", async () => {
  const { client } = await open();
  const ids: string[] = [];
  for (const [index, branch] of ["main", "dev", "main", "main"].entries()) {
    const { run } = await client.createTestRun({
      project: "shop",
      context: { branch, labels: { number: `${index}` } },
    });
    ids.unshift(run?.id ?? "");
  }
  const list = async (request: Parameters<typeof client.listTestRuns>[0]) =>
    (await client.listTestRuns(request)).runs.map(({ id }) => ids.indexOf(id));
  expect(await list({})).toEqual([0, 1, 2, 3]);
  expect(await list({ filter: { branch: "dev" } })).toEqual([2]);
  expect(await list({ filter: { labels: { number: "3" } } })).toEqual([0]);
  expect(await list({ filter: { project: "other" } })).toEqual([]);
  await client.cancelTestRun({ runId: ids[1] ?? "", message: "no" });
  expect(await list({ filter: { states: [TestRunState.CANCELLED, TestRunState.PASSED] } })).toEqual([1]);
  const first = await client.listTestRuns({ filter: { branch: "main" }, pageSize: 2 });
  expect(first.runs.map(({ id }) => ids.indexOf(id))).toEqual([0, 1]);
  const rest = { filter: { branch: "main" }, pageToken: first.nextPageToken };
  expect(await list(rest)).toEqual([3]);
  expect(await failureOf(client.listTestRuns({ pageToken: first.nextPageToken }))).toMatchObject({
    code: Code.InvalidArgument,
    fields: ["page_token"],
  });
});

test("results are filtered and paged, whatever their size", async () => {
  const { client, replica } = await open();
  const { id: runId } = await replica.runs.create(reported());
  const large = (index: number) =>
    event({
      case: "testEnded",
      value: {
        test: { ...identity(`t${index}`), parameters: index % 2 === 0 ? "Even" : "odd" },
        status: TestStatus.PASSED,
        attachments: [
          { name: "shot", source: { case: "content", value: new Uint8Array(250_000).fill(index) } },
        ],
      },
    });
  for (let index = 0; index < 20; index++) {
    await replica.runs.append(runId, "", index + 1, [large(index)]);
  }
  const names: string[] = [];
  let pageToken = "";
  let pages = 0;
  do {
    const page = await client.listTestResults({ runId, pageToken, pageSize: 100 });
    names.push(...page.results.map(({ test: which }) => which?.name ?? ""));
    pageToken = page.nextPageToken;
    pages += 1;
  } while (pageToken !== "");
  expect(names.toSorted()).toEqual(Array.from({ length: 20 }, (_, index) => `t${index}`).toSorted());
  expect(pages).toBe(3);
  const even = await client.listTestResults({ runId, filter: { nameContains: "[even" }, pageSize: 3 });
  expect(even.results.map(({ test: which }) => which?.name)).toEqual(["t0", "t10", "t12"]);
  const none = await client.listTestResults({ runId, filter: { filePrefix: "src/" } });
  expect(none.results).toEqual([]);
  const failed = { runId, filter: { statuses: [TestStatus.FAILED] } };
  expect((await client.listTestResults(failed)).results).toEqual([]);
});

test("coverage is listed file by file", async () => {
  const { client, replica } = await open();
  const { id: runId } = await replica.runs.create(reported());
  const files = ["src/a.ts", "src/b.ts", "test/c.ts"].map((file) => ({
    file,
    lines: [{ line: 1, hits: 2 }],
  }));
  await replica.runs.append(runId, "", 1, [event({ case: "coverage", value: { files } })]);
  const first = await client.getTestCoverage({ runId, pageSize: 1, filePrefix: "src/" });
  expect(first).toMatchObject({ totals: { files: 3, linesCovered: 3n }, files: [{ file: "src/a.ts" }] });
  const second = { runId, pageSize: 1, filePrefix: "src/", pageToken: first.nextPageToken };
  expect(await client.getTestCoverage(second)).toMatchObject({
    files: [{ file: "src/b.ts", lines: [{ line: 1, hits: 2 }] }],
    nextPageToken: "",
  });
});

test("a run is changed by whoever made it and by operators only", async () => {
  const { client } = await open();
  const as = (principal: string) => ({ headers: { "x-test-principal": principal } });
  const { run } = await client.createTestRun({ project: "shop" }, as("key:ci caller"));
  const runId = run?.id ?? "";
  const append = { runId, firstPosition: 1n, events: [ended("a")] };
  const denied = { code: Code.PermissionDenied, reason: "NOT_YOUR_TEST_RUN" };
  expect(await failureOf(client.appendTestEvents(append, as("key:other caller")))).toMatchObject(denied);
  expect(await failureOf(client.finishTestRun({ runId }, as("key:other caller")))).toMatchObject(denied);
  expect(await failureOf(client.cancelTestRun({ runId }, as("key:other caller")))).toMatchObject(denied);
  await client.appendTestEvents(append, as("key:ci caller"));
  expect((await client.cancelTestRun({ runId }, as("key:root operator"))).run?.state).toBe(
    TestRunState.CANCELLED,
  );
  expect(await client.appendTestEvents({ ...append, firstPosition: 2n }, as("key:ci caller"))).toMatchObject({
    cancelled: true,
  });
});

test("nobody reports into a run of the server", async () => {
  const { client, replica } = await open();
  const { id: runId } = await replica.runs.create({
    ...reported(),
    origin: TestRunOrigin.SERVER,
    createdBy: "anonymous",
  });
  const append = client.appendTestEvents({ runId, firstPosition: 1n, events: [ended("a")] });
  expect(await failureOf(append)).toMatchObject({ reason: "TEST_RUN_NOT_REPORTED" });
});

test("a request id opens one run", async () => {
  const { client } = await open();
  const request = { project: "shop", requestId: "6e0c2d0e-6a1f-4c6b-9d55-1c1f2d3e4f50" };
  const [one, other] = await Promise.all([client.createTestRun(request), client.createTestRun(request)]);
  expect(one.run?.id).toBe(other.run?.id);
  expect(await failureOf(client.createTestRun({ ...request, project: "else" }))).toMatchObject({
    code: Code.InvalidArgument,
    fields: ["request_id"],
  });
});

test("projects are those that can be run here and those with runs", async () => {
  const { client } = await open([
    { name: "api", runner: "vitest", description: "The API", environments: ["node", "browser"] },
    { name: "shop", runner: "pytest", description: "", environments: ["default"] },
  ]);
  await client.createTestRun({ project: "shop" });
  await client.createTestRun({ project: "shop", environment: "ci" });
  await client.createTestRun({ project: "web" });
  const { projects } = await client.listProjects({});
  expect(
    projects.map(({ name, runnable, runCount, latestRun }) => [
      name,
      runnable,
      runCount,
      latestRun?.environment,
    ]),
  ).toEqual([
    ["api", true, 0, undefined],
    ["shop", true, 2, "ci"],
    ["web", false, 1, "default"],
  ]);
  const first = await client.listProjects({ pageSize: 2 });
  const rest = await client.listProjects({ pageSize: 2, pageToken: first.nextPageToken });
  expect([...first.projects, ...rest.projects].map(({ name }) => name)).toEqual(["api", "shop", "web"]);
});
