import { create } from "@bufbuild/protobuf";
import { notFound } from "@toolplane/framework";
import { AgentSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  type Workflow,
  WorkflowProblemSeverity,
  WorkflowSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { Streaming, type Tool, ToolKind, ToolSchema } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { expect, test } from "vitest";
import { checkSchedule } from "../worker/cron.ts";
import { createWorkflowValidator } from "./validation.ts";

const tools: Readonly<Record<string, Tool>> = {
  echo: create(ToolSchema, {
    name: "s.v1.Service.echo",
    alias: "s.echo",
    kind: ToolKind.RPC,
    streaming: Streaming.SERVER,
    inputSchema: { type: "object", additionalProperties: false, properties: { text: { type: "string" } } },
    outputSchema: { type: "object", additionalProperties: false, properties: { text: { type: "string" } } },
  }),
  bare: create(ToolSchema, {}),
};

const asked: string[] = [];

const validator = createWorkflowValidator({
  registry: {
    getTool(name, scope) {
      asked.push(JSON.stringify([name, scope]));
      const tool = tools[name];
      if (tool === undefined) throw notFound("tool", name, "did you mean echo?");
      return tool;
    },
    listTools: ({ filter }) => ({
      items: Object.values(tools).filter(() => filter?.environment === "default"),
      nextPageToken: "",
      totalSize: 2,
    }),
  },
  workflows: {
    async get(name, version) {
      if (name !== "child" || version > 1) throw notFound("workflow", name);
      return create(WorkflowSchema, { name, inputSchema: { type: "object", required: ["id"] } });
    },
  },
  agents: {
    async get(name) {
      if (name !== "writer") throw notFound("agent", name, "did you mean writer?");
      return create(AgentSchema, { name });
    },
  },
  checkSchedule,
});

test("A workflow that can be run is valid, with its graph", async () => {
  const { workflow, problems, graph } = await validator.validate({
    case: "text",
    value: `name: a
steps:
  - { id: e, tool: { name: echo, arguments: { text: hello } } }
  - { id: b, tool: { name: bare, arguments: { anything: "\${ steps.e.output[0].text }" } } }
  - { id: w, agent: { name: writer, task: "\${ steps.b.output.what }" } }
  - { id: c, workflow: { name: child, version: 1, input: { id: 1 } } }
`,
  });
  expect(problems).toEqual([]);
  expect(workflow?.steps).toHaveLength(4);
  expect(graph?.depth).toBe(3);
});

test("What is not there is told with what the registry and the definitions say", async () => {
  const { problems } = await validator.validate({
    case: "text",
    value: `name: a
steps:
  - { id: e, tool: { name: ecko } }
  - { id: w, agent: { name: wirter, task: x } }
  - { id: c, workflow: { name: child, version: 2 } }
  - { id: d, workflow: { name: child } }
`,
  });
  expect(problems.map(({ line, reason, field }) => [line, reason, field])).toEqual([
    [3, "UNKNOWN_TOOL", "steps[0].tool.name"],
    [4, "UNKNOWN_AGENT", "steps[1].agent.name"],
    [5, "UNKNOWN_WORKFLOW", "steps[2].workflow.name"],
    [6, "MISSING_ARGUMENT", "steps[3].workflow.input"],
  ]);
  expect(problems[0]?.message).toContain("did you mean echo?");
});

test("A workflow given as a message has fields and no lines", async () => {
  const message: Workflow = create(WorkflowSchema, {
    name: "a",
    steps: [{ id: "x", action: { case: "tool", value: { name: "echo", arguments: { txt: 1 } } } }],
  });
  const { problems, workflow } = await validator.validate({ case: "workflow", value: message });
  expect(workflow).toBe(message);
  expect(problems).toMatchObject([
    { reason: "UNKNOWN_ARGUMENT", field: "steps[0].tool.arguments.txt", stepId: "x", line: 0, column: 0 },
  ]);
});

test("A tool that many steps call is looked up once", async () => {
  asked.length = 0;
  const steps = Array.from({ length: 50 }, (_, index) => `  - { id: s${index}, tool: { name: echo } }`);
  await validator.validate({ case: "text", value: `name: a\nsteps:\n${steps.join("\n")}` });
  expect(asked).toEqual(['["echo",{}]']);
});

test("A text that is no workflow has problems and nothing else", async () => {
  expect(await validator.validate({ case: "text", value: "[" })).toMatchObject({
    workflow: undefined,
    graph: undefined,
    problems: [{ reason: "SYNTAX", line: 1 }],
  });
});

test("A failure of the definitions is no problem of the workflow", async () => {
  const broken = createWorkflowValidator({
    registry: {
      getTool: () => create(ToolSchema, {}),
      listTools: () => ({ items: [], nextPageToken: "", totalSize: 0 }),
    },
    workflows: { get: () => Promise.reject(new Error("the database is away")) },
    agents: { get: () => Promise.reject(new Error("the database is away")) },
    checkSchedule,
  });
  await expect(
    broken.validate({ case: "text", value: "name: a\nsteps: [{ id: x, agent: { name: b, task: c } }]" }),
  ).rejects.toThrow("the database is away");
});

test("Tools for a model that there are not now are warned of", async () => {
  const { workflow, problems } = await validator.validate({
    case: "text",
    value: `name: a
steps:
  - { id: a, requirement: { text: hi, tools: { names: [echo, s.*, "*.echo", ecko, t.*] } } }
  - { id: b, requirement: { text: hi, tools: { names: [s.*], environment: prod } } }
  - { id: c, requirement: { text: hi, tools: { none: true } } }
`,
  });
  expect(workflow).toBeDefined();
  expect(problems.map(({ severity, field, line }) => [severity, field, line])).toEqual([
    [WorkflowProblemSeverity.WARNING, "steps[0].requirement.tools.names[3]", 3],
    [WorkflowProblemSeverity.WARNING, "steps[0].requirement.tools.names[4]", 3],
    [WorkflowProblemSeverity.WARNING, "steps[1].requirement.tools.names[0]", 4],
  ]);
});

test("While a large workflow is checked, others have their turns", async () => {
  const text = "x ${ 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 } y";
  const steps = Array.from({ length: 100 }, (_, index) => ({
    id: `s${index}`,
    action: { case: "agent" as const, value: { name: "writer", task: text.repeat(20) } },
  }));
  let turns = 0;
  const turn = () => {
    turns++;
    next = setImmediate(turn);
  };
  let next = setImmediate(turn);
  const workflow = create(WorkflowSchema, { name: "a", steps });
  const { problems } = await validator.validate({ case: "workflow", value: workflow });
  clearImmediate(next);
  expect(problems).toEqual([]);
  expect(turns).toBeGreaterThan(1);
});
