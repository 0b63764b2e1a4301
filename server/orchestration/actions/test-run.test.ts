import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { systemClock } from "@toolplane/framework";
import { TestingConfigSchema } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { documentedDescriptors } from "@toolplane/gen/toolplane/documented_descriptors.js";
import { TestRunSchema, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { type ShopProject, shopProject } from "../../../test/support/shop-project.ts";
import { resolveTesting } from "../../config/testing.ts";
import { openTestLog } from "../../event-log/testing.ts";
import { emptyRegistry, startServer } from "../../registry/test-support/open-registry.ts";
import type { Database } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { openTestRunning } from "../../test-running.ts";
import { version } from "../../version.ts";
import { CancelledError, ReleasedError } from "../engine/engine.ts";
import type { WorkAction } from "./action.ts";
import { createComparisonWork } from "./comparison.ts";
import { createOwnTools, type OwnTools, objectOf } from "./own-tools.ts";
import { createTestRunWork } from "./test-run.ts";
import { openToolCalling } from "./test-support/open-tool-calling.ts";
import { type NotedContext, stepContext } from "./test-support/step-context.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

interface Stage {
  readonly shop: ShopProject;
  readonly ownTools: OwnTools;
  run(
    environment: string,
    context: NotedContext,
    allowFailures?: boolean,
  ): ReturnType<ReturnType<typeof createTestRunWork>>;
  read(id: string): Promise<TestRunState>;
}

/** A server with test runs that are its tools. */
async function openStage(): Promise<Stage> {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-test-run-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const shop = shopProject(folder);
  const config = fromJson(TestingConfigSchema, { projects: [shop.config as JsonValue] });
  const testRunning = await openTestRunning({
    settings: resolveTesting(config, folder, (field, message) => {
      throw new Error(`${field}: ${message}`);
    }),
    database,
    eventLog: await openTestLog(database),
    clock: systemClock,
    logger: silentLogger,
    env: process.env,
  });
  onTestFinished(() => testRunning.close());
  const server = await startServer({ routes: testRunning.routes });
  const registry = await emptyRegistry(database);
  const descriptors = Buffer.from(documentedDescriptors, "base64");
  await registry.registerLocal({ version, endpoint: server.url, descriptors });
  const ownTools = createOwnTools(openToolCalling(registry), version);
  const work = createTestRunWork(ownTools, systemClock);
  return {
    shop,
    ownTools,
    // Templates are the engine's business: what they came to is the input.
    run: (environment, context, allowFailures = false) =>
      work(
        { kind: "test_run", allowFailures } as Extract<WorkAction, { kind: "test_run" }>,
        { project: "shop", arguments: { environment } },
        context,
      ),
    async read(id) {
      const { run } = await ownTools.call(
        "get-test-run",
        { run_id: id },
        { ...stepContext(), idempotencyKey: "" },
      );
      return fromJson(TestRunSchema, objectOf(run)).state;
    },
  };
}

/** The test run that a step says that it has started. */
function childOf({ told }: NotedContext): string {
  const [first] = told;
  return first?.case === "stepProgress" ? first.value.childId : "";
}

test("a step runs the tests of a project, and gives back the test run", async () => {
  const { run } = await openStage();
  const context = stepContext();
  const { output, childId } = await run("default", context);
  expect(output).toMatchObject({
    id: childId,
    project: "shop",
    state: "TEST_RUN_STATE_PASSED",
    counts: { total: 4, passed: 3, skipped: 1 },
  });
  expect(childOf(context)).toBe(childId);
});

test("failed tests fail the step, unless they may", async () => {
  const { run } = await openStage();
  await expect(run("wrong-prices", stepContext())).rejects.toMatchObject({
    init: { code: Code.FailedPrecondition, reason: "TESTS_FAILED" },
    message: expect.stringMatching(/^1 test of project "shop" failed in test run /),
  });
  const { output } = await run("wrong-prices", stepContext(), true);
  expect(output).toMatchObject({ state: "TEST_RUN_STATE_FAILED" });
});

test("a worker that takes the step over waits for the same test run", async () => {
  const { run, shop } = await openStage();
  const release = new AbortController();
  const context = stepContext({ signal: release.signal });
  const first = run("gated", context);
  first.catch(() => undefined);
  await expect.poll(() => childOf(context)).not.toBe("");
  release.abort(new ReleasedError("the worker stops"));
  await expect(first).rejects.toBeDefined();
  const again = run("gated", { ...context, attempt: 2, signal: new AbortController().signal });
  await shop.openGate();
  const { childId } = await again;
  expect(childId).toBe(childOf(context));
});

test("cancelling the run cancels the test run; another attempt starts another one only after a failure that may pass", async () => {
  const { run, read } = await openStage();
  const cancel = new AbortController();
  const context = stepContext({ signal: cancel.signal });
  const call = run("gated", context);
  call.catch(() => undefined);
  await expect.poll(() => childOf(context)).not.toBe("");
  cancel.abort(new CancelledError("user:ada", "enough"));
  await expect(call).rejects.toBeDefined();
  await expect.poll(() => read(childOf(context))).toBe(TestRunState.CANCELLED);
  await expect(
    run("gated", { ...context, attempt: 2, signal: new AbortController().signal }),
  ).rejects.toMatchObject({ init: { reason: "TEST_RUN_CANCELLED" } });
});

test("a project that there is not fails the step with those that there are", async () => {
  const { ownTools } = await openStage();
  const work = createTestRunWork(ownTools, systemClock);
  await expect(
    work(
      { kind: "test_run" } as Extract<WorkAction, { kind: "test_run" }>,
      { project: "shpo" },
      stepContext(),
    ),
  ).rejects.toMatchObject({ code: Code.NotFound, rawMessage: expect.stringContaining('"shop"') });
});

test("test runs are compared, and a regression fails the step where it is to", async () => {
  const { run, ownTools } = await openStage();
  const { childId: good = "" } = await run("default", stepContext());
  const { childId: bad = "" } = await run("wrong-prices", stepContext(), true);
  const work = createComparisonWork(ownTools);
  const compare = (base: string, head: string, failOnRegression: boolean) =>
    work(
      { kind: "comparison", failOnRegression } as Extract<WorkAction, { kind: "comparison" }>,
      { arguments: { base: { run_ids: [base] }, head: { run_ids: [head] } } },
      stepContext(),
    );
  const { output } = await compare(good, bad, false);
  expect(output).toMatchObject({ summary: { regression: true } });
  await expect(compare(good, bad, true)).rejects.toMatchObject({
    init: { code: Code.FailedPrecondition, reason: "REGRESSION", metadata: { newly_failing: "1" } },
  });
  await expect(compare(bad, good, true)).resolves.toBeDefined();
});

test("a test run that is lost with its server is begun anew, whichever attempt this is, and not without end", async () => {
  const keys: unknown[] = [];
  let lost = 1;
  const work = createTestRunWork(
    {
      async call(_, args) {
        keys.push(args["request_id"]);
        const isLost = keys.length <= lost;
        const end = { reason: "TEST_RUN_END_REASON_SERVER_LOST" };
        const run = { id: `run-${keys.length}`, project: "shop", endTime: "2026-01-01T00:00:00Z" };
        return {
          run: isLost
            ? { ...run, state: "TEST_RUN_STATE_ERROR", end }
            : { ...run, state: "TEST_RUN_STATE_PASSED" },
        };
      },
    },
    systemClock,
  );
  const action = { kind: "test_run", allowFailures: false } as Extract<WorkAction, { kind: "test_run" }>;
  const input = { project: "shop", arguments: {} };
  const { childId } = await work(action, input, stepContext());
  expect(childId).toBe("run-2");
  expect(new Set(keys).size).toBe(2);

  lost = 100;
  keys.length = 0;
  await expect(work(action, input, stepContext())).rejects.toMatchObject({
    init: { reason: "TEST_RUN_WITHOUT_VERDICT" },
  });
  expect(keys).toHaveLength(6);
});
