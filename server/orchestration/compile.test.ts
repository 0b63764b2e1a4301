import { create, fromJson, type JsonObject, type MessageInitShape } from "@bufbuild/protobuf";
import { DomainError } from "@toolplane/framework";
import { type Agent, AgentSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { RunKind, RunSourceSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { WorkflowSchema } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { expect, test } from "vitest";
import { compileRun } from "./compile.ts";
import { ExpressionError, type Scope } from "./expressions/expression.ts";

const nothing: Scope = { input: {}, steps: {}, run: { id: "", attempt: 1, start_time: "" } };

function compile(kind: MessageInitShape<typeof RunSourceSchema>["kind"], agents: readonly Agent[] = []) {
  return compileRun(create(RunSourceSchema, { ...(kind && { kind }) }), agents);
}

function compileWorkflow(definition: JsonObject, agents: readonly Agent[] = []) {
  const inline = fromJson(WorkflowSchema, { name: "test", ...definition });
  return compile({ case: "workflow", value: { workflow: { case: "inline", value: inline } } }, agents);
}

/** The only step of a workflow. */
function compileStep(step: JsonObject, agents: readonly Agent[] = []) {
  const [compiled] = compileWorkflow({ steps: [{ id: "a", ...step }] }, agents).steps;
  if (compiled === undefined) {
    throw new Error("there is no step");
  }
  return compiled;
}

const reviewer = create(AgentSchema, { name: "reviewer", version: 2, prompt: "Review." });

test("a batch is a step for each call, with the defaults of batches", () => {
  const plan = compile({
    case: "toolBatch",
    value: {
      calls: [
        { tool: "a", input: { case: "arguments", value: { text: "${input.x}" } } },
        { tool: "b", environment: "staging", version: "1", timeout: { seconds: 2n } },
      ],
      timeout: { seconds: 7n },
      retry: { attempts: 3, maxBackoff: { seconds: 9n } },
    },
  });
  expect(plan).toMatchObject({
    kind: RunKind.TOOL_BATCH,
    maxConcurrency: 5,
    timeoutMs: 86_400_000,
    output: { kind: "list", name: "result" },
    steps: [
      {
        id: "call0",
        dependsOn: [],
        timeoutMs: 7_000,
        retry: { attempts: 3, initialBackoffMs: 1_000, maxBackoffMs: 9_000 },
        action: { kind: "tool", tool: "a", environment: "", version: "" },
      },
      { id: "call1", timeoutMs: 2_000, action: { tool: "b", environment: "staging", version: "1" } },
    ],
  });
  const [first] = plan.steps;
  expect(first?.action.kind === "tool" && first.action.arguments.evaluate(nothing)).toEqual({
    text: "${input.x}",
  });
});

test.each([{ input: { case: "message" as const, value: {} } }, { argumentStream: [{}] }])(
  "a batch takes JSON arguments only",
  (call) => {
    expect(() => compile({ case: "toolBatch", value: { calls: [{ tool: "a", ...call }] } })).toThrow(
      /tool_batch\.calls\[0\]\.\w+: a run calls tools with JSON arguments only/,
    );
  },
);

test("a requirement is one step, whose time is a little more than its budget's", () => {
  const budget = { maxTime: { seconds: 90n } };
  const plan = compile({ case: "requirement", value: { text: "Do ${this}.", budget } });
  expect(plan).toMatchObject({
    kind: RunKind.REQUIREMENT,
    output: { kind: "single" },
    steps: [{ id: "main", timeoutMs: 100_000, retry: { attempts: 1 }, action: { kind: "requirement" } }],
  });
  expect(compile({ case: "requirement", value: { text: "Do." } }).steps[0]?.timeoutMs).toBe(610_000);
});

test("tasks are steps of the agents that were pinned, with what these say of time and attempts", () => {
  const hurried = create(AgentSchema, { name: "hurried", version: 1, timeout: { seconds: 5n }, attempts: 1 });
  const tasks = [
    { agent: "reviewer", task: "Review ${this}." },
    { agent: "hurried", version: 1, task: "Now." },
  ];
  const plan = compile({ case: "agentTasks", value: { tasks } }, [reviewer, hurried]);
  expect(plan).toMatchObject({
    kind: RunKind.AGENT_TASKS,
    maxConcurrency: 10,
    output: { kind: "list", name: undefined },
    steps: [
      { id: "task0", timeoutMs: 30_000, retry: { attempts: 3 }, action: { agent: { name: "reviewer" } } },
      { id: "task1", timeoutMs: 5_000, retry: { attempts: 1 } },
    ],
  });
  const [first] = plan.steps;
  expect(first?.action.kind === "agent" && first.action.task.evaluate(nothing)).toBe("Review ${this}.");
  expect(() => compile({ case: "agentTasks", value: { tasks } }, [reviewer])).toThrow(
    /"hurried@1" does not exist/,
  );
});

test("a step comes after all that it names, wherever it does", () => {
  const { steps } = compileWorkflow({
    steps: [
      ...["a", "b", "c", "d", "e"].map((id) => ({ id, value: 1 })),
      {
        id: "last",
        depends_on: ["e", "a"],
        condition: "${steps.b.output > 0.0}",
        for_each: { items: "${[steps.c.output]}" },
        tool: { name: "t", arguments: { list: [{ x: "${steps.a.output}" }] } },
        fallback: { value: "${steps.d.output} ${error.code}" },
      },
    ],
  });
  const [last] = steps.slice(-1);
  expect(last?.dependsOn.slice(0, 2)).toEqual(["e", "a"]);
  expect(last?.dependsOn.toSorted()).toEqual(["a", "b", "c", "d", "e"]);
});

test.each<[JsonObject, number | undefined]>([
  [{ tool: { name: "t" } }, 60_000],
  [{ comparison: {} }, 60_000],
  [{ requirement: { text: "Do." } }, 610_000],
  [{ agent: { name: "reviewer", task: "Do." } }, 600_000],
  [{ test_run: { project: "p" } }, 3_600_000],
  [{ workflow: { name: "w" } }, undefined],
  [{ approval: { message: "?" } }, undefined],
  [{ value: 1 }, undefined],
  [{ wait: "5s" }, undefined],
  [{ wait: "5s", timeout: "3s" }, 3_000],
])("%j has its time", (step, timeoutMs) => {
  expect(compileStep(step, [reviewer]).timeoutMs).toBe(timeoutMs);
});

test("what a workflow leaves out has its defaults, and what it says counts", () => {
  const { steps, ...plan } = compileWorkflow({ steps: [{ id: "a", value: 1 }] });
  expect(plan).toMatchObject({
    kind: RunKind.WORKFLOW,
    maxConcurrency: 10,
    timeoutMs: 86_400_000,
    output: { kind: "leaves" },
  });
  expect(steps).toMatchObject([
    {
      trigger: "success",
      continueOnFailure: false,
      fanOut: undefined,
      condition: undefined,
      fallback: undefined,
      retry: { attempts: 1, initialBackoffMs: 1_000, maxBackoffMs: 60_000 },
    },
  ]);
  expect(
    compileStep({
      trigger: "STEP_TRIGGER_ALWAYS",
      for_each: { items: "[1]", max_concurrency: 2, continue_on_failure: true },
      continue_on_failure: true,
      approval: { message: "?", approve_on_timeout: true },
    }),
  ).toMatchObject({
    trigger: "always",
    continueOnFailure: true,
    fanOut: { maxConcurrency: 2, continueOnFailure: true },
    action: { kind: "approval", approveOnTimeout: true },
  });
  expect(compileStep({ agent: { name: "reviewer", task: "Do." } }, [reviewer]).retry.attempts).toBe(3);
  expect(
    compileStep({ agent: { name: "reviewer", task: "Do." }, retry: { attempts: 7 } }, [reviewer]).retry
      .attempts,
  ).toBe(7);
});

test("what cannot be parsed or done is refused", () => {
  expect(() => compileStep({ value: "${1 +}" })).toThrow(ExpressionError);
  expect(() => compileStep({ agent: { name: "nobody", task: "Do." } })).toThrow(
    /agent "nobody" does not exist/,
  );
  expect(() => compileStep({})).toThrow(/say what the step does/);
  expect(() => compileStep({ wait: "-1s" })).toThrow(/steps\.a\.wait: must not be negative/);
  expect(() => compile(undefined)).toThrow(DomainError);
});
