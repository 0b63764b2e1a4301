import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";
import { toConnectError } from "@toolplane/framework";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunContextSchema, TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { TestRunService } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { createComparer } from "../comparison/comparer.ts";
import { storedRuns } from "../comparison/run-source.ts";
import { ended, reported } from "../test-support/events.ts";
import { openReplica, type Replica } from "../test-support/open-replica.ts";
import { createHistorian } from "./historian.ts";
import { storedHistory } from "./source.ts";

const { PASSED, FAILED } = TestStatus;

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

/** A client of both handlers over what is stored. */
function clientOf({ queries }: Replica) {
  return createClient(
    TestRunService,
    createRouterTransport(
      (router) =>
        router.service(TestRunService, {
          ...createComparer({ source: storedRuns({ database, queries }) }),
          ...createHistorian({ source: storedHistory(database) }),
        }),
      {
        router: {
          interceptors: [
            (next) => (request) =>
              next(request).catch((error: unknown) => {
                throw toConnectError(error, { correlationId: "test", logger: silentLogger });
              }),
          ],
        },
      },
    ),
  );
}

interface SampleRun {
  readonly project: string;
  readonly commit?: string;
  readonly branch?: string;
  readonly environment?: string;
  readonly tests: Readonly<Record<string, TestStatus>>;
  readonly reason?: TestRunEndReason;
}

async function report(replica: Replica, { tests, reason, ...run }: SampleRun): Promise<string> {
  const { project, environment = "ci", commit = "", branch = "main" } = run;
  const { id } = await replica.runs.create(
    reported({ project, environment, context: create(TestRunContextSchema, { commit, branch }) }),
  );
  const events = Object.entries(tests).map(([name, status]) => {
    const event = ended(name, status, `${name} broke\nsomewhere`);
    if (event.kind.case === "testEnded" && event.kind.value.test) {
      event.kind.value.test.project = project;
    }
    return event;
  });
  await replica.runs.append(id, "", 1, events);
  await replica.runs.finish(id, { reason: reason ?? TestRunEndReason.UNSPECIFIED, message: "" });
  return id;
}

async function refusal(promise: Promise<unknown>): Promise<[Code, string]> {
  const error = await promise.then(
    () => new ConnectError("it was not refused"),
    (reason: unknown) => ConnectError.from(reason),
  );
  return [error.code, error.rawMessage];
}

test("a test's history: its results, newest first, and what they say", async () => {
  const replica = await openReplica(database);
  const client = clientOf(replica);
  const project = "history-of-a-test";
  const ids: string[] = [];
  for (const [commit, status] of [
    ["a", PASSED],
    ["a", FAILED],
    ["b", PASSED],
    ["c", PASSED],
    ["d", PASSED],
  ] as const) {
    ids.push(await report(replica, { project, commit, tests: { adds: status, "adds more": PASSED } }));
  }
  const lost = await report(replica, {
    project,
    commit: "e",
    tests: { adds: FAILED },
    reason: TestRunEndReason.CANCELLED,
  });
  const { history } = await client.getTestHistory({ project, test: "cart > adds" });
  if (history.case !== "test") {
    throw new Error("not of a test");
  }
  expect(history.value).toMatchObject({
    test: { name: "adds", suitePath: ["cart"] },
    runs: 5,
    passRate: 0.8,
    flakiness: { flaky: true, evidence: [{ kind: "same-commit-flip", count: 1, opportunities: 1 }] },
    medianDuration: { nanos: 5_000_000 },
  });
  expect(history.value.entries.map(({ runId }) => runId)).toEqual([lost, ...ids.toReversed()]);
  expect(history.value.entries[0]).toMatchObject({ excluded: true, commit: "e", message: "adds broke" });

  const byId = await client.getTestHistory({ project, test: history.value.testId, maxRuns: 2 });
  expect(byId.history.value).toMatchObject({ testId: history.value.testId, runs: 1 });
});

test("a test that is not named well", async () => {
  const replica = await openReplica(database);
  const client = clientOf(replica);
  const project = "names";
  await report(replica, {
    project,
    tests: { "opens files": PASSED, "opens folders": PASSED, "50% off": PASSED },
  });
  const ask = (test: string, of = project) => refusal(client.getTestHistory({ project: of, test }));
  expect(await ask("OPENS")).toEqual([
    Code.InvalidArgument,
    expect.stringMatching(
      /^test: "OPENS" fits several tests: "cart > opens f.*" \(o.test.ts, [0-9a-f]{32}\), .*; name one by its test_id/,
    ),
  ]);
  expect(await ask("open files")).toEqual([
    Code.NotFound,
    expect.stringMatching(/^Project "names" has no test "open files": near names are "cart > opens files"/),
  ]);
  expect(await ask("x", "no such project")).toEqual([
    Code.NotFound,
    'Project "no such project" has no test "x": it has no tests that ran to the end of a run',
  ]);
  expect(await ask("0".repeat(32))).toEqual([Code.NotFound, expect.stringContaining("has no test")]);
  expect(await ask("50%_off")).toEqual([Code.NotFound, expect.anything()]);
  expect((await client.getTestHistory({ project, test: "50%" })).history.value).toMatchObject({
    test: { name: "50% off" },
  });
});

test("a project's history: its runs, its trends and its flaky tests, the worst first", async () => {
  const replica = await openReplica(database);
  const client = clientOf(replica);
  const project = "history-of-a-project";
  for (let index = 0; index < 10; index++) {
    const tests = {
      steady: PASSED,
      alternates: index % 2 === 0 ? PASSED : FAILED,
      torn: index === 1 ? FAILED : PASSED,
    };
    await report(replica, { project, commit: `c${index >> 1}`, branch: index < 8 ? "main" : "topic", tests });
  }
  const { history } = await client.getTestHistory({ project });
  if (history.case !== "project") {
    throw new Error("not of a project");
  }
  expect(history.value.points).toHaveLength(10);
  expect(history.value.points[0]).toMatchObject({ commit: "c4", passRate: 2 / 3, counts: { total: 3 } });
  expect(history.value.flakyTests.map(({ test }) => test?.name)).toEqual(["alternates", "torn"]);
  expect(history.value.verdicts).toMatchObject([{ rule: "mann-kendall", baseN: 10 }, { baseN: 10 }]);

  const topic = await client.getTestHistory({ project, branch: "topic" });
  expect(topic.history.value).toMatchObject({ points: [{}, {}] });
  expect(await refusal(client.getTestHistory({ project, branch: "none" }))).toEqual([
    Code.NotFound,
    'test project "history-of-a-project" does not exist: there is no run of it that ended in this environment and branch',
  ]);
});

test("stored runs are compared by id, and as the latest of a branch", async () => {
  const replica = await openReplica(database);
  const client = clientOf(replica);
  const project = "compared";
  const base = await report(replica, { project, tests: { adds: PASSED, takes: PASSED } });
  const head = await report(replica, { project, branch: "topic", tests: { adds: FAILED, takes: PASSED } });
  await replica.runs.create(reported({ project }));
  const { comparison } = await client.compareTestRuns({
    base: { latest: { filter: { project, branch: "main" }, count: 3 } },
    head: { runIds: [head] },
  });
  expect(comparison?.base.map(({ id }) => id)).toEqual([base]);
  expect(comparison).toMatchObject({
    summary: { regression: true, newlyFailing: 1, unchanged: 1 },
    changes: [{ test: { name: "adds" }, failure: { message: "adds broke\nsomewhere" } }],
  });
  expect(
    await refusal(client.compareTestRuns({ base: { runIds: ["gone"] }, head: { runIds: [head] } })),
  ).toEqual([
    Code.NotFound,
    'test run "gone" does not exist: see base.run_ids[0]; list the runs that there are',
  ]);
});
