import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError, type Principal } from "@toolplane/framework";
import { AgentSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { RunSourceSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import {
  WorkflowProblemSchema,
  WorkflowProblemSeverity,
  WorkflowSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import type { Model } from "../models/model.ts";
import { agentKind, workflowKind } from "./kinds.ts";
import { type PrepareOptions, prepareRun } from "./prepare.ts";
import { createDefinitions } from "./store.ts";

const ada: Principal = { id: "user:ada", role: "operator" };
const clock = createFakeClock();
let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.close());
beforeEach(async () => {
  await database.kysely.deleteFrom("orchestration_definitions").execute();
});

const model: Model = {
  name: "local/m",
  provider: "local",
  protocol: "openai",
  model: "m",
  inputPrice: undefined,
  cachedInputPrice: undefined,
  outputPrice: undefined,
  maxOutputTokens: 100,
};

function openStage(options: Partial<PrepareOptions> = {}) {
  const workflows = createDefinitions({ database, clock, kind: workflowKind });
  const agents = createDefinitions({ database, clock, kind: agentKind });
  const prepare = (kind: MessageInitShape<typeof RunSourceSchema>["kind"]) =>
    prepareRun(create(RunSourceSchema, kind === undefined ? {} : { kind }), {
      workflows,
      agents,
      validator: {
        validate: ({ case: form, value }) => ({
          workflow: form === "workflow" ? value : undefined,
          problems: [],
          graph: undefined,
        }),
      },
      gateway: { find: () => model },
      maxValueBytes: 1_000,
      ...options,
    });
  return { workflows, agents, prepare };
}

const noModel = {
  find(): never {
    throw new DomainError({ code: Code.FailedPrecondition, reason: "NO_MODEL_PROVIDER", message: "none" });
  },
};

function workflow(init: MessageInitShape<typeof WorkflowSchema> = {}) {
  return create(WorkflowSchema, {
    name: "w",
    steps: [{ id: "one", action: { case: "tool", value: { name: "s.Do" } } }],
    ...init,
  });
}

const reviewStep = {
  id: "review",
  action: { case: "agent", value: { name: "reviewer", task: "x" } },
} as const;

test("a kept workflow is pinned at its version, with its agents", async () => {
  const { workflows, agents, prepare } = openStage();
  await agents.put(create(AgentSchema, { name: "reviewer", prompt: "One" }), ada, "");
  await agents.put(create(AgentSchema, { name: "reviewer", prompt: "Two" }), ada, "");
  const kept = workflow({ steps: [reviewStep], labels: { team: "a" }, timeout: { seconds: 60n } });
  await workflows.put(kept, ada, "");
  await workflows.put(workflow({ description: "newer" }), ada, "");
  const prepared = await prepare({
    case: "workflow",
    value: { workflow: { case: "name", value: "w" }, version: 1, input: { a: 1 } },
  });
  expect(prepared).toMatchObject({
    title: "w",
    workflowVersion: 1,
    timeoutMs: 60_000,
    labels: { team: "a" },
    agents: [{ name: "reviewer", version: 2, prompt: "Two" }],
    source: {
      kind: {
        case: "workflow",
        value: {
          version: 1,
          input: { a: 1 },
          workflow: {
            case: "inline",
            value: { version: 1, steps: [{ id: "review", action: { value: { version: 2 } } }] },
          },
        },
      },
    },
  });
  const newest = await prepare({ case: "workflow", value: { workflow: { case: "name", value: "w" } } });
  expect(newest).toMatchObject({ workflowVersion: 2, timeoutMs: undefined, agents: [] });
});

test("a workflow that is not kept has no version, whatever it says", async () => {
  const { prepare } = openStage();
  const prepared = await prepare({
    case: "workflow",
    value: { workflow: { case: "inline", value: workflow({ version: 9, etag: "x", createdBy: "y" }) } },
  });
  expect(prepared).toMatchObject({
    workflowVersion: 0,
    source: { kind: { value: { workflow: { value: { version: 0, etag: "", createdBy: "" } } } } },
  });
});

test("the problems of a workflow name field and line", async () => {
  const problem = (index: number) =>
    create(WorkflowProblemSchema, {
      severity: WorkflowProblemSeverity.ERROR,
      reason: "UNKNOWN_STEP",
      field: `steps[${index}].condition`,
      line: 4,
      column: 2,
      message: 'there is no step "x"',
    });
  const warning = create(WorkflowProblemSchema, { severity: WorkflowProblemSeverity.WARNING });
  const { prepare } = openStage({
    validator: {
      validate: () => ({
        workflow: workflow(),
        graph: undefined,
        problems: [warning, ...Array.from({ length: 60 }, (_, index) => problem(index))],
      }),
    },
  });
  const failure = await prepare({
    case: "workflow",
    value: { workflow: { case: "text", value: "name: w" } },
  }).catch((error: unknown) => error);
  expect.assert(failure instanceof DomainError);
  expect(failure.init.fields).toHaveLength(51);
  expect(failure.init.fields?.[0]).toEqual({
    field: "source.workflow.text.steps[0].condition",
    description: 'line 4, column 2: there is no step "x"',
    reason: "UNKNOWN_STEP",
  });
  expect(failure.init.fields?.[50]?.description).toContain("10 more");
});

test("the input is checked against the workflow's schema, and for its size", async () => {
  const { prepare } = openStage();
  const inputSchema = { type: "object", properties: { n: { type: "number" } }, required: ["n"] };
  const inline = { case: "inline", value: workflow({ inputSchema }) } as const;
  await expect(
    prepare({ case: "workflow", value: { workflow: inline, input: { n: "one" } } }),
  ).rejects.toMatchObject({
    init: { code: Code.InvalidArgument, fields: [{ field: "source.workflow.input.n" }] },
  });
  await expect(prepare({ case: "workflow", value: { workflow: inline } })).rejects.toMatchObject({
    init: { fields: [{ field: "source.workflow.input.n" }] },
  });
  await expect(
    prepare({ case: "workflow", value: { workflow: inline, input: { n: 1, text: "x".repeat(1_000) } } }),
  ).rejects.toMatchObject({
    init: { fields: [{ field: "source.workflow.input", reason: "INPUT_TOO_LARGE" }] },
  });
});

test("agents of tasks are found once and pinned", async () => {
  const { agents, prepare } = openStage();
  for (const name of ["a", "b"]) {
    await agents.put(create(AgentSchema, { name, prompt: "One" }), ada, "");
    await agents.put(create(AgentSchema, { name, prompt: "Two" }), ada, "");
  }
  const tasks = [
    { agent: "a", task: "1" },
    { agent: "b", version: 1, task: "2" },
    { agent: "a", version: 2, task: "3" },
  ];
  const prepared = await prepare({ case: "agentTasks", value: { tasks, maxConcurrency: 2 } });
  expect(prepared).toMatchObject({
    title: "a and 1 more",
    agents: [
      { name: "a", version: 2 },
      { name: "b", version: 1 },
    ],
    source: {
      kind: { value: { tasks: [{ version: 2 }, { version: 1 }, { version: 2 }], maxConcurrency: 2 } },
    },
  });
  await expect(
    prepare({ case: "agentTasks", value: { tasks: [{ agent: "c", task: "1" }] } }),
  ).rejects.toMatchObject({ init: { code: Code.NotFound, reason: "AGENT_NOT_FOUND" } });
});

test("without a model nothing that needs one is begun", async () => {
  const { agents, prepare } = openStage({ gateway: noModel });
  await agents.put(create(AgentSchema, { name: "reviewer", prompt: "One" }), ada, "");
  const requirement = { text: "Do it" };
  const inline = (steps: Parameters<typeof workflow>[0]) => ({
    case: "workflow" as const,
    value: { workflow: { case: "inline" as const, value: workflow(steps) } },
  });
  for (const kind of [
    { case: "requirement" as const, value: requirement },
    { case: "agentTasks" as const, value: { tasks: [{ agent: "reviewer", task: "x" }] } },
    inline({ steps: [reviewStep] }),
    inline({ steps: [{ id: "r", action: { case: "requirement", value: requirement } }] }),
  ]) {
    await expect(prepare(kind)).rejects.toMatchObject({
      init: { code: Code.FailedPrecondition, reason: "NO_MODEL_PROVIDER" },
    });
  }
  await expect(prepare(inline({}))).resolves.toBeDefined();
});

test("a requirement is called by its first words", async () => {
  const { prepare } = openStage();
  const { title } = await prepare({
    case: "requirement",
    value: { text: `  Compare the\n\nlast two runs ${"and so on ".repeat(50)}` },
  });
  expect(title).toBe("Compare the last two runs and so on and so on and so on and so on and so on and…");
});

test("a batch has JSON arguments and no ids of its own; unknown tools are no reason to refuse it", async () => {
  const { prepare } = openStage();
  const prepared = await prepare({
    case: "toolBatch",
    value: { calls: [{ tool: "there.is.none" }, { tool: "s.Do" }, { tool: "s.Do" }] },
  });
  expect(prepared.title).toBe("there.is.none and 2 more");
  await expect(
    prepare({
      case: "toolBatch",
      value: {
        calls: [
          { tool: "a", requestId: "0192d3a4-0000-7000-8000-000000000000" },
          { tool: "b", input: { case: "message", value: {} } },
          { tool: "c", argumentStream: [{}] },
        ],
      },
    }),
  ).rejects.toMatchObject({
    init: {
      code: Code.InvalidArgument,
      fields: [
        { field: "source.tool_batch.calls[0].request_id" },
        { field: "source.tool_batch.calls[1].message" },
        { field: "source.tool_batch.calls[2].argument_stream" },
      ],
    },
  });
  const large = { tool: "a", input: { case: "arguments" as const, value: { text: "x".repeat(600) } } };
  await expect(prepare({ case: "toolBatch", value: { calls: [large, large] } })).rejects.toMatchObject({
    init: { fields: [{ field: "source.tool_batch.calls", reason: "INPUT_TOO_LARGE" }] },
  });
});
