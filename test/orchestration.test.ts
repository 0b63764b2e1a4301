import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createLogger, type Server, serve } from "@toolplane/framework";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import type { RunEvent } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import {
  type Run,
  RunState,
  type RunStep,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { TextService } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";
import { textService } from "../examples/typescript/text-service.ts";
import {
  type Script,
  startAnthropicServer,
} from "../server/orchestration/models/test-support/model-servers.ts";
import { createTestDatabaseUrl } from "../server/storage/testing.ts";
import { type CountingBackend, startCountingBackend } from "./support/counting-backend.ts";
import { shopProject } from "./support/shop-project.ts";
import { startTestApp, type TestApp } from "./support/test-app.ts";

const KEY = "sk-secret-key-of-the-model-0123456789";
const WRITE = "faults.examples.faults.v1.FaultService.Write";
const READ = "faults.examples.faults.v1.FaultService.Read";

type Runs = Client<typeof OrchestrationService>;
type Source = NonNullable<NonNullable<Parameters<Runs["startRun"]>[0]["source"]>["kind"]>;

/** What has to be closed at the end, last first. */
const closing: (() => unknown)[] = [];
/** Two replicas on one database. */
let app: TestApp;
let runs: Runs;
let runsOfOther: Runs;
let backend: CountingBackend;
/** What becomes of calls to the backend, and what the model does: each test has its own. */
let handle: (text: string, signal: AbortSignal) => Promise<void> | void;
let script: Script;

beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-runs-"));
  closing.push(() => rm(folder, { recursive: true, force: true }));
  backend = await startCountingBackend({ handle: (text, { signal }) => handle(text, signal) });
  closing.push(() => backend.close());
  const models = await startAnthropicServer((request) => script(request));
  closing.push(() => models.close());
  const text: Server = await serve({
    name: "text",
    version: "1.0.0",
    listen: "127.0.0.1:0",
    register: false,
    logger: createLogger({ level: "error" }),
    routes: (router) => router.service(TextService, textService),
  });
  closing.push(() => text.close());

  const databaseUrl = await createTestDatabaseUrl();
  const config = JSON.stringify({
    testing: { projects: [shopProject(folder).config] },
    outbound: { cache: { signing_key: { env: "CACHE_KEY" } } },
    orchestration: {
      models: [
        { name: "main", provider: "anthropic", model: "claude-test", input_price: 3, output_price: 15 },
      ],
    },
  });
  const env = {
    PATH: process.env["PATH"],
    CACHE_KEY: "a key that all replicas have, of some length",
    ANTHROPIC_API_KEY: KEY,
    ANTHROPIC_BASE_URL: models.url,
  };
  app = await start({ databaseUrl, config, env });
  const other = await start({ databaseUrl, config, env });
  runs = clientOf(app);
  runsOfOther = clientOf(other);
  const registry = createClient(RegistryService, createGrpcTransport({ baseUrl: app.url }));
  for (const [name, endpoint] of [
    ["faults", backend.url],
    ["text", text.url],
  ] as const) {
    await registry.registerService({
      service: { name, version: "1.0.0" },
      instance: { id: name, endpoint, leaseTtl: { seconds: 3_600n } },
    });
  }
  // The other replica hears of it a moment later.
  const seen = createClient(RegistryService, createGrpcTransport({ baseUrl: other.url }));
  await vi.waitFor(async () => expect((await seen.listServices({})).services).toHaveLength(3), 20_000);
});

beforeEach(() => {
  handle = () => undefined;
  script = () => ({ kind: "answer", text: "Done." });
});

afterAll(async () => {
  for (const close of closing.toReversed()) {
    await close();
  }
});

async function start(options: Parameters<typeof startTestApp>[0]): Promise<TestApp> {
  const started = await startTestApp(options);
  closing.push(() => started.close());
  return started;
}

function clientOf({ url }: Pick<TestApp, "url">): Runs {
  return createClient(OrchestrationService, createGrpcTransport({ baseUrl: url }));
}

/** Starts a run and waits for its end. */
async function execute(kind: Source, client = runs): Promise<Run> {
  const { run } = await client.startRun({ source: { kind } });
  return await ended(run?.id ?? "", client);
}

async function ended(runId: string, client = runs): Promise<Run> {
  const { run } = await client.getRun({ runId, wait: { seconds: 60n } });
  expect.assert(run?.endTime !== undefined, `run ${runId} does not end`);
  return run;
}

function workflow(definition: object | string, input: Record<string, JsonValue> = {}): Source {
  const text = typeof definition === "string" ? definition : JSON.stringify({ name: "test", ...definition });
  return { case: "workflow", value: { workflow: { case: "text", value: text }, input } };
}

function write(text: string) {
  return { tool: { name: WRITE, arguments: { text } } };
}

function outputOf({ output }: Pick<Run | RunStep, "output">): JsonValue | undefined {
  return output && toJson(ValueSchema, output);
}

async function eventsOf(runId: string, client = runs, afterSequence = 0n): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const { kind } of client.watchRun({ runId, afterSequence })) {
    if (kind.case === "events") {
      events.push(...kind.value.events);
    }
  }
  return events;
}

async function stepsOf(runId: string): Promise<Record<string, RunStep>> {
  const { steps } = await runs.listRunSteps({ runId, pageSize: 1_000 });
  return Object.fromEntries(steps.map((step) => [step.path, step]));
}

async function reasonOf(
  failure: Promise<unknown>,
): Promise<{ code: Code; reason: string | undefined; message: string }> {
  const error = await failure.then(
    () => undefined,
    (error: unknown) => ConnectError.from(error),
  );
  expect.assert(error !== undefined, "it has not failed");
  return {
    code: error.code,
    reason: error.findDetails(ErrorInfoSchema)[0]?.reason,
    message: error.rawMessage,
  };
}

test("the example with everything in it runs: tests, comparison, fan-out, fallback, approval, retry, output", async () => {
  const text = await readFile(join(import.meta.dirname, "../examples/workflows/release.yaml"), "utf8");
  // One name of a tool is as good as another one.
  const validated = await runs.validateWorkflow({ source: { case: "text", value: text } });
  expect(validated.problems).toEqual([]);
  expect(validated.valid).toBe(true);
  const { workflow: kept, changed } = await runs.putWorkflow({ source: { case: "text", value: text } });
  expect({ version: kept?.version, changed }).toEqual({ version: 1, changed: true });

  const base = await execute(
    workflow({ steps: [{ id: "base", test_run: { project: "shop" } }], output: "${ steps.base.output.id }" }),
  );
  let writes = 0;
  handle = (called) => {
    if (called === "stock") {
      throw new ConnectError("out of order", Code.FailedPrecondition);
    }
    if (called.startsWith("release") && ++writes < 3) {
      throw new ConnectError("not yet", Code.Unavailable);
    }
  };
  const { run: started } = await runs.startRun({
    source: {
      kind: {
        case: "workflow",
        value: {
          workflow: { case: "name", value: "release" },
          input: {
            project: "shop",
            base_run: String(outputOf(base)),
            notes: ["It is fast.", "Nobody is kept waiting for what need not be waited for."],
          },
        },
      },
    },
  });
  const runId = started?.id ?? "";
  await expect
    .poll(async () => (await runs.getRun({ runId })).run?.pendingApprovals, { timeout: 60_000 })
    .toMatchObject([
      {
        path: "approval",
        message:
          "Publish shop? Tests: TEST_RUN_STATE_PASSED; regression: false; stock: not known: FAILED_PRECONDITION.",
      },
    ]);
  await runsOfOther.resolveApproval({ runId, approved: true, comment: "go" });
  const run = await ended(runId);
  expect(run).toMatchObject({ state: RunState.SUCCEEDED, title: "release", labels: { team: "platform" } });
  expect(outputOf(run)).toMatchObject({
    summary: { words: [3, 11], regression: false, stock: "not known: FAILED_PRECONDITION" },
    approved_by: "anonymous",
  });
  const steps = await stepsOf(runId);
  expect(steps["publish"]).toMatchObject({ state: StepState.SUCCEEDED });
  expect(steps["stock"]).toMatchObject({ state: StepState.SUCCEEDED, fallback: true });
  expect(steps["grades[1]"]).toMatchObject({ state: StepState.SUCCEEDED });
  expect(steps["undo"]).toMatchObject({ state: StepState.SKIPPED });
  const published = backend.of(runId).filter(({ text: called }) => called.startsWith("release"));
  expect(new Set(published.map(({ key }) => key)).size).toBe(1);

  const { workflow: found, yaml, graph } = await runs.getWorkflow({ name: "release" });
  expect(graph?.depth).toBe(6);
  expect(found?.steps).toHaveLength(parse(text).steps.length);
  const again = await runs.putWorkflow({ source: { case: "text", value: yaml } });
  expect(again).toMatchObject({ changed: false, workflow: { version: 1 } });
});

test("calls of a batch go side by side up to the cap, and one that fails harms no other", async () => {
  let waiting = 0;
  const all = Promise.withResolvers<void>();
  handle = async (text) => {
    if (++waiting === 5) {
      all.resolve();
    }
    // None ends before five are there.
    await all.promise;
    if (text === "call 2") {
      throw new ConnectError("no", Code.PermissionDenied);
    }
  };
  const calls = Array.from({ length: 12 }, (_, index) => ({
    tool: WRITE,
    input: { case: "arguments" as const, value: { text: `call ${index}` } },
  }));
  const run = await execute({ case: "toolBatch", value: { calls } });
  expect(run.state).toBe(RunState.FAILED);
  expect(run.steps).toMatchObject({ total: 12, succeeded: 11, failed: 1 });
  const outcomes = outputOf(run);
  expect.assert(Array.isArray(outcomes));
  expect(outcomes[2]).toMatchObject({ error: { code: "PERMISSION_DENIED", message: "no" } });
  expect(outcomes.filter((outcome) => JSON.stringify(outcome).includes("result"))).toHaveLength(11);
  expect(Math.max(...backend.of(run.id).map(({ beside }) => beside))).toBe(5);
});

test("cancelling reaches calls that run, from another replica too, and the run ends as cancelled once", async () => {
  const began = Promise.withResolvers<AbortSignal>();
  handle = (_, signal) => {
    began.resolve(signal);
    return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const { run } = await runs.startRun({
    source: {
      kind: workflow({
        steps: [
          { id: "long", ...write("long") },
          { id: "after", depends_on: ["long"], value: 1 },
        ],
      }),
    },
  });
  const runId = run?.id ?? "";
  const signal = await began.promise;
  const cancelled = await runsOfOther.cancelRun({ runId, message: "enough" });
  expect(cancelled.run).toMatchObject({
    state: RunState.CANCELLED,
    error: { message: expect.stringContaining("enough") },
  });
  await expect.poll(() => signal.aborted).toBe(true);
  const events = await eventsOf(runId);
  expect(events.filter(({ kind }) => kind.case === "finished")).toHaveLength(1);
  const again = await runs.cancelRun({ runId });
  expect(again.run?.lastSequence).toBe(BigInt(events.length));
});

test("every watcher is told the same: early, late, from a number on, on either replica, over HTTP", async () => {
  const { run } = await runs.startRun({
    source: {
      kind: workflow({
        steps: [
          { id: "list", value: [1, 2, 3] },
          {
            id: "each",
            for_each: { items: "${ steps.list.output }" },
            tool: { name: READ, arguments: { text: "${ string(item) }" } },
          },
          { id: "asked", approval: { message: "Go on?" } },
          { id: "last", depends_on: ["asked", "each"], value: "${ size(steps.each.output) }" },
        ],
      }),
    },
  });
  const runId = run?.id ?? "";
  const early = [eventsOf(runId), eventsOf(runId, runsOfOther)];
  await expect.poll(async () => (await runs.getRun({ runId })).run?.state).toBe(RunState.WAITING);
  const middle = eventsOf(runId, runsOfOther, 3n);
  await runs.resolveApproval({ runId, path: "asked", approved: true });
  expect((await ended(runId)).state).toBe(RunState.SUCCEEDED);
  const late = await eventsOf(runId, runsOfOther);
  expect(late.map(({ sequence }) => Number(sequence))).toEqual(late.map((_, index) => index + 1));
  expect(await early[0]).toEqual(late);
  expect(await early[1]).toEqual(late);
  expect(await middle).toEqual(late.slice(3));
  expect(late.map(({ kind }) => kind.case)).toEqual(
    expect.arrayContaining([
      "created",
      "started",
      "planned",
      "stepStarted",
      "approvalRequested",
      "waiting",
      "approvalResolved",
    ]),
  );
  const response = await fetch(`${app.url}/runs/${runId}/events`);
  const told = (await response.text()).match(/^id: \d+$/gm);
  expect(told).toEqual(late.map(({ sequence }) => `id: ${sequence}`));
});

test("a run that has failed is retried from where it failed: what had succeeded is not done again", async () => {
  let works = false;
  handle = (text) => {
    if (text === "second" && !works) {
      throw new ConnectError("broken", Code.FailedPrecondition);
    }
  };
  const steps = [
    { id: "first", ...write("first") },
    { id: "second", depends_on: ["first"], ...write("second") },
    { id: "third", depends_on: ["second"], ...write("third") },
  ];
  const failed = await execute(workflow({ steps }));
  expect(failed).toMatchObject({ state: RunState.FAILED, steps: { succeeded: 1, failed: 1, skipped: 1 } });
  expect(await reasonOf(runs.retryRun({ runId: failed.id, fromSteps: ["absent"] }))).toMatchObject({
    code: Code.InvalidArgument,
  });

  works = true;
  const { run } = await runsOfOther.retryRun({ runId: failed.id });
  const retried = await ended(run?.id ?? "");
  expect(retried).toMatchObject({ state: RunState.SUCCEEDED, retryOf: failed.id });
  expect(backend.of(retried.id).map(({ text }) => text)).toEqual(["second", "third"]);
  expect((await stepsOf(retried.id))["first"]).toMatchObject({ reused: true, state: StepState.SUCCEEDED });
  expect(await reasonOf(runs.retryRun({ runId: retried.id }))).toMatchObject({ reason: "RUN_NOT_RETRYABLE" });

  const { run: anew } = await runs.retryRun({ runId: failed.id, fromSteps: ["first"] });
  expect((await ended(anew?.id ?? "")).state).toBe(RunState.SUCCEEDED);
  expect(backend.of(anew?.id ?? "").map(({ text }) => text)).toEqual(["first", "second", "third"]);
});

test("a model does what is said: it calls tools side by side, mends its mistakes, and its cost is known", async () => {
  script = ({ turn, tools, results }) => {
    const name = tools.find((tool) => tool.name.includes("Write"))?.name ?? "none";
    switch (turn) {
      case 1:
        return {
          kind: "answer",
          text: "I begin.",
          calls: [
            { name, arguments: { text: "one" } },
            { name, arguments: { text: 2 } },
          ],
          usage: { input: 1_000, cached: 0, output: 100 },
        };
      case 2:
        expect(results.map(({ isError }) => isError)).toEqual([false, true]);
        return {
          kind: "answer",
          calls: [{ name, arguments: { text: "two" } }],
          usage: { input: 2_000, cached: 0, output: 100 },
        };
      default:
        return { kind: "answer", text: '{"done": 2}', usage: { input: 3_000, cached: 0, output: 100 } };
    }
  };
  const run = await execute({
    case: "requirement",
    value: { text: "Write one and two.", tools: { names: [WRITE] } },
  });
  expect(run.error?.message).toBeUndefined();
  expect(run).toMatchObject({
    state: RunState.SUCCEEDED,
    usage: { turns: 3, inputTokens: 6_000n, outputTokens: 300n, toolCalls: 3, costIncomplete: false },
  });
  expect(run.usage?.costUsd).toBeCloseTo((6_000 * 3 + 300 * 15) / 1_000_000);
  expect(outputOf(run)).toMatchObject({ json: { done: 2 } });
  expect(backend.of(run.id).map(({ text }) => text)).toEqual(["one", "two"]);
  const events = await eventsOf(run.id);
  const kinds = new Set(events.map(({ kind }) => kind.case));
  expect(kinds).toContain("modelDelta");
  expect(kinds).toContain("toolSelection");
  expect(kinds).toContain("usage");
  expect(
    JSON.stringify(events, (_, value) => (typeof value === "bigint" ? String(value) : value)),
  ).not.toContain(KEY);
});

test("a model starts a workflow by the server's own tools, and that run knows where it comes from", async () => {
  await runs.putWorkflow({
    source: {
      case: "text",
      value: JSON.stringify({ name: "small", steps: [{ id: "only", ...write("small") }] }),
    },
  });
  script = ({ turn, tools, results }) => {
    const named = (part: string) => tools.find((tool) => tool.name.includes(part))?.name ?? "none";
    switch (turn) {
      case 1:
        return {
          kind: "answer",
          calls: [{ name: named("start-run"), arguments: { source: { workflow: { name: "small" } } } }],
        };
      case 2:
        return {
          kind: "answer",
          calls: [
            {
              name: named("get-run"),
              arguments: { runId: JSON.parse(results[0]?.text ?? "{}").result?.run?.id ?? "", wait: "30s" },
            },
          ],
        };
      default:
        return { kind: "answer", text: String(results[0]?.text.includes("SUCCEEDED")) };
    }
  };
  const run = await execute({
    case: "requirement",
    value: {
      text: "Run the small workflow.",
      tools: { names: ["toolplane.start-run", "toolplane.get-run"] },
    },
  });
  expect(outputOf(run)).toMatchObject({ text: "true" });
  const { runs: children } = await runs.listRuns({ filter: { parentRunId: run.id } });
  expect(children).toMatchObject([{ title: "small", state: RunState.SUCCEEDED, parentRunId: run.id }]);
});

test("a model runs tests, compares the runs and starts a workflow, all by the server's own tools", async () => {
  await runs.putWorkflow({
    source: {
      case: "text",
      value: JSON.stringify({ name: "report", steps: [{ id: "only", ...write("report") }] }),
    },
  });
  const resultOf = (result: { text: string } | undefined) => JSON.parse(result?.text ?? "{}").result;
  let testRuns: string[] = [];
  script = ({ turn, tools, results }) => {
    const call = (part: string, args: JsonObject) => ({
      name: tools.find((tool) => tool.name.includes(part))?.name ?? "none",
      arguments: args,
    });
    switch (turn) {
      case 1:
        return {
          kind: "answer",
          calls: [
            call("run-unit-tests", { project: "shop" }),
            call("run-unit-tests", { project: "shop", environment: "wrong-prices" }),
          ],
        };
      case 2:
        testRuns = results.map((result) => resultOf(result).run.id);
        return {
          kind: "answer",
          calls: testRuns.map((runId) => call("get-test-run", { runId, wait: "60s" })),
        };
      case 3: {
        const [base = "", head = ""] = testRuns;
        const compared = { base: { runIds: [base] }, head: { runIds: [head] } };
        return { kind: "answer", calls: [call("compare-test-runs", compared)] };
      }
      case 4:
        // The environments differ, so nothing is called a regression; what broke is listed all the same.
        expect(resultOf(results[0]).comparison.changes.length).toBeGreaterThan(0);
        return {
          kind: "answer",
          calls: [call("start-run", { source: { workflow: { name: "report" } } })],
        };
      default:
        return { kind: "answer", text: `Reported by ${resultOf(results[0]).run.id}.` };
    }
  };
  const run = await execute({
    case: "requirement",
    value: {
      text: "Find out what the wrong prices break, and report it.",
      tools: {
        names: [
          "toolplane.*-test*",
          "toolplane.compare-test-runs",
          "toolplane.run-unit-tests",
          "toolplane.start-run",
        ],
      },
    },
  });
  expect(run).toMatchObject({ state: RunState.SUCCEEDED, usage: { turns: 5, toolCalls: 6 } });
  const { runs: children } = await runs.listRuns({ filter: { parentRunId: run.id } });
  expect(outputOf(run)).toMatchObject({ text: `Reported by ${children[0]?.id}.` });
});

test("a workflow starts by its schedule, with what the schedule gives it, until it is deleted", async () => {
  const definition = {
    name: "ticking",
    schedules: [{ cron: "* * * * * *", input: { what: "tick" } }],
    steps: [{ id: "only", value: "${ input.what }" }],
  };
  const { workflow: kept } = await runs.putWorkflow({
    source: { case: "text", value: JSON.stringify(definition) },
  });
  expect(kept?.schedules[0]?.nextTime).toBeDefined();
  const started = async () => (await runsOfOther.listRuns({ filter: { name: "ticking" } })).runs;
  await expect.poll(async () => (await started()).length).toBeGreaterThanOrEqual(3);
  await runs.deleteWorkflow({ name: "ticking" });
  for (const { id } of await started()) {
    const run = await ended(id);
    expect(run).toMatchObject({ state: RunState.SUCCEEDED, schedule: "ticking" });
    expect(outputOf(run)).toEqual({ only: "tick" });
  }
});

test("tasks of an agent are done side by side, and a task that was done is answered from what is kept", async () => {
  script = ({ task }) => {
    return { kind: "answer", text: `Answer to ${task}`, usage: { input: 100, cached: 0, output: 10 } };
  };
  await runs.putAgent({ agent: { name: "helper", prompt: "Answer." } });
  const tasks = ["a", "b", "c"].map((task) => ({ agent: "helper", task }));
  const first = await execute({ case: "agentTasks", value: { tasks } });
  expect(outputOf(first)).toMatchObject([
    { text: "Answer to a" },
    { text: "Answer to b" },
    { text: "Answer to c" },
  ]);
  // Answers are kept in the background, and either replica may have the next run.
  await expect
    .poll(async () => {
      const next = await execute({ case: "agentTasks", value: { tasks } }, runsOfOther);
      expect(outputOf(next)).toEqual(outputOf(first));
      return next.usage;
    })
    .toMatchObject({ turns: 0, savedTokens: 330n, toolCalls: 0 });
});

test("without a provider of models, what needs one is refused before a run is made, and told what to set", async () => {
  const bare = await startTestApp();
  try {
    const client = clientOf(bare);
    const refusal = await reasonOf(
      client.startRun({ source: { kind: { case: "requirement", value: { text: "Do something." } } } }),
    );
    expect(refusal).toMatchObject({ code: Code.FailedPrecondition, reason: "NO_MODEL_PROVIDER" });
    expect(refusal.message).toContain("ANTHROPIC_API_KEY");
    expect((await client.listRuns({})).runs).toEqual([]);
  } finally {
    await bare.close();
  }
});

test("what is wrong with a workflow is told by field and line, all at once", async () => {
  const text = [
    "name: broken",
    "steps:",
    "  - id: a",
    "    tool: { name: text.AnalyzeText, arguments: { text: 5 } }",
    "  - id: b",
    "    depends_on: [c]",
    "    value: 1",
    "  - id: c",
    "    value: ${ steps.b.output }",
    "  - id: d",
    "    tool: { name: text.AnalyseText }",
    "  - id: e",
    "    value: ${ steps.x.output }",
  ].join("\n");
  const { valid, problems } = await runs.validateWorkflow({ source: { case: "text", value: text } });
  expect(valid).toBe(false);
  expect(problems.map(({ reason, line }) => `${line} ${reason}`)).toEqual(
    expect.arrayContaining(["4 INVALID_VALUE", "11 UNKNOWN_TOOL", "13 UNKNOWN_STEP"]),
  );
  expect(problems.some(({ reason }) => reason === "CYCLE")).toBe(true);
  expect(await reasonOf(runs.putWorkflow({ source: { case: "text", value: text } }))).toMatchObject({
    code: Code.InvalidArgument,
  });
});

test("a server that stops lets go of its runs, and another one goes on at once", async () => {
  const gate = Promise.withResolvers<void>();
  const began = Promise.withResolvers<void>();
  handle = async (text) => {
    if (text === "gated") {
      began.resolve();
      await gate.promise;
    }
  };
  const databaseUrl = await createTestDatabaseUrl();
  const one = await startTestApp({ databaseUrl });
  const registry = createClient(RegistryService, createGrpcTransport({ baseUrl: one.url }));
  await registry.registerService({
    service: { name: "faults", version: "1.0.0" },
    instance: { id: "faults", endpoint: backend.url, leaseTtl: { seconds: 3_600n } },
  });
  const { run } = await clientOf(one).startRun({
    source: {
      kind: workflow({
        steps: [
          { id: "first", ...write("free") },
          { id: "second", depends_on: ["first"], ...write("gated") },
        ],
      }),
    },
  });
  await began.promise;
  const next = await startTestApp({ databaseUrl });
  try {
    await one.close();
    gate.resolve();
    const runId = run?.id ?? "";
    expect((await ended(runId, clientOf(next))).state).toBe(RunState.SUCCEEDED);
    expect(backend.of(runId).filter(({ text }) => text === "free")).toHaveLength(1);
  } finally {
    await next.close();
  }
});
