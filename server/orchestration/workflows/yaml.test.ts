import { readFileSync } from "node:fs";
import { create, equals, fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { ScheduleSchema, WorkflowSchema } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import fc from "fast-check";
import { expect, test } from "vitest";
import { parseWorkflowText } from "./parse.ts";
import { toYaml } from "./yaml.ts";

const text = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 20 }),
  fc.constantFrom(
    "yes",
    "1",
    "null",
    "~",
    "- a",
    "a: b",
    "# c",
    " x ",
    "a\nb\n",
    "\n\n",
    "${ steps.a.output }",
    "5m",
    "<<",
    "*a",
    "&a",
    "!t",
  ),
);
const id = fc.stringMatching(/^[a-z_][a-z0-9_]{0,8}$/);
const { json } = fc.letrec<{ json: JsonValue }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 3 },
    text,
    fc.boolean(),
    fc.constant(null),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => (Object.is(number, -0) ? 0 : number)),
    fc.integer(),
    fc.array(tie("json"), { maxLength: 3 }),
    fc.dictionary(text, tie("json"), { maxKeys: 3 }),
  ),
}));
const struct = fc.dictionary(text, json, { maxKeys: 3 });
const duration = fc.integer({ min: 1, max: 1_000_000 }).map((ms) => `${ms / 1000}s`);

const action = fc.oneof(
  fc.record({
    tool: fc.record({ name: text, environment: text, arguments: struct }, { requiredKeys: ["name"] }),
  }),
  fc.record({ agent: fc.record({ name: id, version: fc.nat(9), task: text }) }),
  fc.record({ approval: fc.record({ message: text, approve_on_timeout: fc.boolean() }) }),
  fc.record({ test_run: fc.record({ project: text, arguments: struct, allow_failures: fc.boolean() }) }),
  fc.record({ workflow: fc.record({ name: id, input: struct }) }),
  fc.record({ value: json }),
  fc.record({ wait: duration }),
);
const step = fc
  .tuple(
    fc.record(
      {
        id,
        description: text,
        depends_on: fc.array(id, { maxLength: 3 }),
        trigger: fc.constantFrom("STEP_TRIGGER_ON_FAILURE", "STEP_TRIGGER_ALWAYS"),
        condition: text,
        for_each: fc.record({ items: text, max_concurrency: fc.nat(9) }),
        timeout: duration,
        retry: fc.record({ attempts: fc.nat(9), initial_backoff: duration }),
        fallback: fc.record({ value: json }),
        continue_on_failure: fc.boolean(),
      },
      { requiredKeys: ["id"] },
    ),
    action,
  )
  .map(([head, what]) => ({ ...head, ...what }));
const workflow = fc.record(
  {
    name: id,
    description: text,
    input_schema: struct,
    steps: fc.array(step, { maxLength: 4 }),
    output: json,
    max_concurrency: fc.nat(99),
    timeout: duration,
    schedules: fc.array(fc.record({ cron: text, time_zone: text, input: struct, paused: fc.boolean() }), {
      maxLength: 2,
    }),
    labels: fc.dictionary(text, text, { maxKeys: 3 }),
  },
  { requiredKeys: ["name", "steps"] },
);

test("Every workflow reads back from its YAML as it was", () => {
  fc.assert(
    fc.property(workflow, (written) => {
      const message = fromJson(WorkflowSchema, written as JsonObject);
      const { workflow: read, problems } = parseWorkflowText(toYaml(message));
      expect(problems).toEqual([]);
      expect(read !== undefined && equals(WorkflowSchema, read, message)).toBe(true);
    }),
    { numRuns: 300 },
  );
});

test("What the server sets is left out, and fields come in the order in which they are read", () => {
  const yaml = toYaml(
    create(WorkflowSchema, {
      name: "a",
      version: 3,
      etag: "e",
      createdBy: "ada",
      createTime: timestampNow(),
      schedules: [create(ScheduleSchema, { cron: "* * * * *", nextTime: timestampNow() })],
      steps: [
        {
          id: "x",
          dependsOn: ["y"],
          timeout: { seconds: 5n },
          action: { case: "tool", value: { name: "t", arguments: { text: "${ input.a }\nb" } } },
        },
      ],
    }),
  );
  expect(yaml).toBe(
    `name: a
schedules:
  - cron: "* * * * *"
steps:
  - id: x
    depends_on:
      - y
    tool:
      name: t
      arguments:
        text: |-
          \${ input.a }
          b
    timeout: 5s
`,
  );
});

test("The example with everything reads back from its YAML", () => {
  const example = readFileSync(new URL("../../../examples/workflows/release.yaml", import.meta.url), "utf8");
  const { workflow: message } = parseWorkflowText(example);
  expect(message).toBeDefined();
  if (message !== undefined) expect(parseWorkflowText(toYaml(message)).workflow).toEqual(message);
});
