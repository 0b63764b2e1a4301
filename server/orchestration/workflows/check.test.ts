import { readFileSync } from "node:fs";
import type { JsonObject } from "@bufbuild/protobuf";
import {
  type WorkflowGraph,
  WorkflowProblemSeverity,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { describe, expect, test } from "vitest";
import { checkSchedule } from "../worker/cron.ts";
import { type CheckOptions, checkWorkflow } from "./check.ts";
import type { KnownTool } from "./lookup.ts";
import { parseWorkflowText } from "./parse.ts";

function tool(inputSchema: JsonObject, outputSchema: JsonObject, rest: Partial<KnownTool> = {}): KnownTool {
  return { inputSchema, outputSchema, streams: false, isProtobuf: true, ...rest };
}

const analysis = tool(
  {
    type: "object",
    required: ["text"],
    additionalProperties: false,
    properties: {
      text: { type: "string", minLength: 2 },
      topWords: { type: "integer", minimum: 1 },
      size: { $ref: "#/$defs/int64" },
      mode: { type: "string", enum: ["FAST", "SLOW"] },
      place: { $ref: "#/$defs/place" },
      tags: { type: "array", items: { type: "string" } },
      labels: { type: "object", additionalProperties: { type: "string" } },
    },
    $defs: {
      int64: { type: ["string", "integer"], pattern: "^-?[0-9]+$" },
      place: {
        type: "object",
        additionalProperties: false,
        required: ["city"],
        properties: { city: { type: "string" }, lat: { type: "number" }, inner: { $ref: "#/$defs/place" } },
      },
    },
  },
  {
    type: "object",
    additionalProperties: false,
    properties: {
      words: { type: "integer" },
      longest: { type: "string" },
      total: { type: "string", pattern: "^[0-9]+$" },
      list: {
        type: "array",
        items: {
          type: "object",
          additionalProperties: false,
          properties: { id: { type: "string" }, score: { type: "number" } },
        },
      },
      place: { $ref: "#/$defs/place" },
      labels: { type: "object", additionalProperties: { type: "string" } },
    },
    $defs: {
      place: {
        type: "object",
        additionalProperties: false,
        properties: { city: { type: "string" }, lat: { type: "number" } },
      },
    },
  },
);

const tools: Readonly<Record<string, KnownTool>> = {
  analyze: analysis,
  stream: { ...analysis, streams: true },
  http: tool(
    { type: "object", properties: { text: { type: "string" }, limit: { type: "integer" } } },
    { type: "object", properties: { found: { type: ["string", "null"] } } },
    { isProtobuf: false },
  ),
};

const options: CheckOptions = {
  tools: (name) => tools[name] ?? { unknown: `there is no tool "${name}"; did you mean "analyze"?` },
  agents: (name) => (name === "writer" ? undefined : { unknown: `there is no agent "${name}"` }),
  workflows: (name) =>
    name === "other"
      ? { inputSchema: { type: "object", required: ["id"], properties: { id: { type: "string" } } } }
      : { unknown: `there is no workflow "${name}"` },
  checkSchedule,
};

/** What is wrong, as `line severity reason field: message`. */
function problemsOf(text: string): string[] {
  const { workflow, place, problems } = parseWorkflowText(text);
  expect(problems).toEqual([]);
  if (workflow === undefined) return [];
  return checkWorkflow(workflow, { ...options, place }).problems.map(
    ({ line, severity, reason, field, message }) =>
      `${line} ${severity === WorkflowProblemSeverity.ERROR ? "ERROR" : "WARNING"} ${reason} ${field}: ${message}`,
  );
}

function graphOf(text: string): WorkflowGraph | undefined {
  const { workflow } = parseWorkflowText(text);
  return workflow && checkWorkflow(workflow, options).graph;
}

/** A workflow whose steps are these lines, the first of which is line 14. */
function steps(...lines: string[]): string {
  return `name: a
input_schema:
  type: object
  required: [city]
  additionalProperties: false
  properties:
    city: { type: string }
    days: { type: integer }
    cities: { type: array, items: { type: string } }
    any: {}
steps:
  - id: first
    tool: { name: analyze, arguments: { text: some text } }
${lines.map((line) => `  ${line}`).join("\n")}
`;
}

const call = (args: string) => steps(`- { id: x, tool: { name: analyze, arguments: { ${args} } } }`);
const value = (expression: string) => steps("- id: x", `  value: "\${ ${expression} }"`);

describe("The order of steps", () => {
  test.each([
    [
      steps("- { id: first, wait: 1s }"),
      '14 ERROR DUPLICATE_STEP steps[1].id: "first" is also the id of steps[0]',
    ],
    [
      steps("- { id: x, depends_on: [frist], wait: 1s }"),
      '14 ERROR UNKNOWN_STEP steps[1].depends_on[0]: there is no step "frist" (did you mean "first"?)',
    ],
    [
      value("steps.frist.output"),
      '15 ERROR UNKNOWN_STEP steps[1].value: there is no step "frist" (did you mean "first"?)',
    ],
    [value("steps.x.output"), '15 ERROR SELF_REFERENCE steps[1].value: the step "x" comes after itself'],
    [
      steps(
        "- { id: x, depends_on: [z], wait: 1s }",
        '- { id: y, value: "${ steps.x.output }" }',
        "- { id: z, depends_on: [y], wait: 1s }",
      ),
      '14 ERROR CYCLE steps[1].depends_on: steps come after each other in a circle: "x" after "z" after "y" after "x"',
    ],
    [
      value("steps[input.city].output"),
      "15 ERROR EXPRESSION steps[1].value: which step is meant must be known beforehand",
    ],
    [
      `${steps("- { id: x, wait: 1s }")}output: { a: "\${ steps.y.output }" }`,
      '15 ERROR UNKNOWN_STEP output.a: there is no step "y"',
    ],
  ])("%#", (text, problem) => {
    expect(problemsOf(text)).toEqual([expect.stringContaining(problem)]);
  });

  test("Two circles are two problems, and the steps beside them are checked too", () => {
    const problems = problemsOf(
      steps(
        "- { id: a, depends_on: [b], wait: 1s }",
        "- { id: b, depends_on: [a], wait: 1s }",
        '- { id: c, value: "${ steps.d.output }" }',
        '- { id: d, value: "${ steps.c.output }" }',
        "- { id: e, tool: { name: nothing } }",
      ),
    );
    expect(problems.map((problem) => problem.split(" ")[2])).toEqual(["CYCLE", "CYCLE", "UNKNOWN_TOOL"]);
  });

  test("The graph has the steps in levels, and tells what flows along the edges", () => {
    const graph = graphOf(
      steps(
        '- { id: last, depends_on: [first, mid], value: "${ steps.mid.output }" }',
        '- { id: mid, condition: "true", for_each: { items: "${ [1] }" }, value: "${ steps.first.output }" }',
        "- { id: alone, test_run: { project: shop } }",
      ),
    );
    expect(graph?.depth).toBe(3);
    expect(
      graph?.nodes.map(({ stepId, kind, target, level, fanOut, conditional }) => [
        stepId,
        kind,
        target,
        level,
        fanOut,
        conditional,
      ]),
    ).toEqual([
      ["first", "tool", "analyze", 0, false, false],
      ["alone", "test_run", "shop", 0, false, false],
      ["mid", "value", "", 1, true, true],
      ["last", "value", "", 2, false, false],
    ]);
    expect(graph?.edges.map(({ from, to, data }) => [from, to, data])).toEqual([
      ["first", "last", false],
      ["mid", "last", true],
      ["first", "mid", true],
    ]);
  });
});

describe("Names", () => {
  test.each([
    [
      steps("- { id: x, tool: { name: nope } }"),
      '14 ERROR UNKNOWN_TOOL steps[1].tool.name: there is no tool "nope"; did you mean "analyze"?',
    ],
    [
      steps("- { id: x, wait: 1s }", "- { id: y, tool: { name: http }, fallback: { tool: { name: nope } } }"),
      "15 ERROR UNKNOWN_TOOL steps[2].fallback.tool.name",
    ],
    [steps("- { id: x, agent: { name: nope, task: write } }"), "14 ERROR UNKNOWN_AGENT steps[1].agent.name"],
    [steps("- { id: x, workflow: { name: nope } }"), "14 ERROR UNKNOWN_WORKFLOW steps[1].workflow.name"],
    [
      steps("- { id: x, workflow: { name: a, input: { city: b } } }"),
      "14 WARNING RECURSION steps[1].workflow.name",
    ],
    [
      value("item"),
      '15 ERROR OUT_OF_SCOPE steps[1].value: "item" is there only in what a step with for_each does',
    ],
    [
      steps("- { id: x, for_each: { items: input.cities }, condition: index > 0, value: 1 }"),
      "14 ERROR OUT_OF_SCOPE steps[1].condition",
    ],
    [value("error.code"), '15 ERROR OUT_OF_SCOPE steps[1].value: "error" is there only in a fallback'],
    [
      value("inptu.city"),
      '15 ERROR EXPRESSION steps[1].value: "inptu" is not known here (did you mean "input"?)',
    ],
    [steps("- { id: x-y, wait: 1s }"), "14 ERROR STRING_PATTERN steps[1].id"],
    [steps("- { id: x }"), "14 ERROR REQUIRED steps[1].action"],
  ])("%#", (text, problem) => {
    expect(problemsOf(text)).toEqual([expect.stringContaining(problem)]);
  });

  test("Schedules and the schema of the input are checked", () => {
    expect(
      problemsOf(
        "name: a\nschedules:\n  - cron: 99 * * * *\n  - { cron: 0 * * * *, time_zone: Mars }\nsteps: [{ id: x, wait: 1s }]",
      ),
    ).toEqual([
      expect.stringContaining("3 ERROR INVALID_SCHEDULE schedules[0].cron"),
      expect.stringContaining('4 ERROR INVALID_SCHEDULE schedules[1].cron: "Mars" is not a time zone'),
    ]);
    expect(
      problemsOf(`${steps("- { id: x, wait: 1s }")}schedules: [{ cron: 0 * * * *, input: { city: 5 } }]`),
    ).toEqual([expect.stringContaining("ERROR")]);
    expect(problemsOf("name: a\ninput_schema: { type: string }\nsteps: [{ id: x, wait: 1s }]")).toEqual([
      expect.stringContaining("2 ERROR INVALID_SCHEMA input_schema"),
    ]);
    expect(
      problemsOf(
        "name: a\ninput_schema: { type: object, properties: { a: { type: text } } }\nsteps: [{ id: x, wait: 1s }]",
      ),
    ).toEqual([expect.stringContaining("2 ERROR INVALID_SCHEMA input_schema")]);
  });
});

describe("Steps that never run", () => {
  test.each([
    [
      steps("- { id: x, condition: false, wait: 1s }".replace("false", '"false"')),
      "14 WARNING UNREACHABLE steps[1].condition: is always false",
    ],
    [
      steps('- { id: x, condition: "input.any && false", wait: 1s }'),
      "14 WARNING UNREACHABLE steps[1].condition",
    ],
    [
      steps("- { id: x, trigger: STEP_TRIGGER_ON_FAILURE, wait: 1s }"),
      "14 WARNING UNREACHABLE steps[1].trigger: waits for a failure, and the step comes after none",
    ],
    [
      steps(
        "- { id: c, continue_on_failure: true, wait: 1s }",
        "- { id: x, depends_on: [c], trigger: STEP_TRIGGER_ON_FAILURE, wait: 1s }",
      ),
      "15 WARNING UNREACHABLE steps[2].trigger",
    ],
    [
      steps('- { id: x, for_each: { items: "[]" }, wait: 1s }'),
      "14 WARNING UNREACHABLE steps[1].for_each.items: is always empty",
    ],
    [steps("- { id: x, wait: 1s, fallback: { value: 1 } }"), "14 WARNING UNREACHABLE steps[1].fallback"],
  ])("%#", (text, problem) => {
    expect(problemsOf(text)).toEqual([expect.stringContaining(problem)]);
  });
});

describe("What a tool is given", () => {
  test.each([
    [
      call("topWords: 3"),
      '14 ERROR MISSING_ARGUMENT steps[1].tool.arguments: "text" is required here and missing',
    ],
    [
      call("text: abc, topWord: 3"),
      '14 ERROR UNKNOWN_ARGUMENT steps[1].tool.arguments.topWord: "topWord" is not taken here (did you mean "topWords"?)',
    ],
    [call("text: a"), "14 ERROR INVALID_VALUE steps[1].tool.arguments.text: expected at least 2 characters"],
    [call("text: abc, topWords: 0"), "14 ERROR INVALID_VALUE steps[1].tool.arguments.topWords"],
    [call("text: abc, mode: QUICK"), "14 ERROR"],
    [
      call('text: "${ input.days }"'),
      "14 ERROR TYPE_MISMATCH steps[1].tool.arguments.text: takes a string, and gets an integer",
    ],
    [
      call('text: "${ steps.first.output }"'),
      "TYPE_MISMATCH steps[1].tool.arguments.text: takes a string, and gets an object",
    ],
    [call('text: "${ steps.first.output.list.map(x, x.id) }"'), "takes a string, and gets a list"],
    [
      call('text: abc, tags: "${ steps.first.output.list }"'),
      "TYPE_MISMATCH steps[1].tool.arguments.tags[]: takes a string, and gets an object",
    ],
    [
      call('text: abc, tags: ["${ input.city }", "${ input.days }"]'),
      "TYPE_MISMATCH steps[1].tool.arguments.tags[1]",
    ],
    [
      call('text: abc, place: { lat: "${ input.any }" }'),
      'MISSING_ARGUMENT steps[1].tool.arguments.place: "city" is required',
    ],
    [
      call('text: abc, place: { city: "${ input.city }", inner: { town: x } }'),
      "UNKNOWN_ARGUMENT steps[1].tool.arguments.place.inner.town",
    ],
    [
      call("text: abc, place: \"${ {'city': 1} }\""),
      "TYPE_MISMATCH steps[1].tool.arguments.place.city: takes a string, and gets an integer",
    ],
    [
      call("text: abc, place: \"${ {'lat': 1.5} }\""),
      'MISSING_ARGUMENT steps[1].tool.arguments.place: "city" is required',
    ],
    [call('text: abc, labels: { a: "${ input.days }" }'), "TYPE_MISMATCH steps[1].tool.arguments.labels.a"],
    [call('text: abc, topWords: "${ input.cities }"'), "takes an integer, and gets a list"],
    [call('text: "${ input.days > 3 ? 1 : 2 }"'), "takes a string, and gets an integer"],
    [
      steps(
        '- { id: x, for_each: { items: "${ input.cities.map(c, size(c)) }" }, tool: { name: analyze, arguments: { text: "${ item }" } } }',
      ),
      "takes a string, and gets an integer",
    ],
    [
      steps(
        '- { id: x, for_each: { items: "${ input.cities }" }, tool: { name: analyze, arguments: { text: "${ index }" } } }',
      ),
      "takes a string, and gets an integer",
    ],
    [
      steps('- { id: x, tool: { name: http, arguments: { limit: "${ input.city }" } } }'),
      "takes an integer, and gets a string",
    ],
    [steps("- { id: x, tool: { name: http, arguments: { limit: '5' } } }"), "ERROR"],
    [
      steps("- { id: x, tool: { name: http, arguments: { txt: hello } } }"),
      "WARNING UNKNOWN_ARGUMENT steps[1].tool.arguments.txt",
    ],
    [
      steps(
        '- { id: x, tool: { name: http }, fallback: { tool: { name: analyze, arguments: { text: "${ error }" } } } }',
      ),
      "TYPE_MISMATCH steps[1].fallback.tool.arguments.text",
    ],
    [steps("- { id: x, workflow: { name: other, input: { ID: b } } }"), "steps[1].workflow.input"],
    [
      steps("- { id: x, test_run: { project: shop, arguments: { shards: many } } }"),
      "steps[1].test_run.arguments",
    ],
    [
      steps("- { id: x, comparison: { arguments: { bas: {} } } }"),
      "UNKNOWN_ARGUMENT steps[1].comparison.arguments.bas",
    ],
  ])("%#", (text, problem) => {
    expect(problemsOf(text)[0]).toContain(problem);
  });

  test.each([
    call("text: abc, top_words: '3', size: 12345, mode: null"),
    call("text: abc, size: '9223372036854775807', place: { city: x, inner: { city: y } }"),
    call('text: "${ input.any }", topWords: "${ steps.first.output.total }"'),
    call('text: "n: ${ input.days }", topWords: "${ input.days * 2 }", size: "${ input.days }"'),
    call(
      'text: abc, place: "${ steps.first.output.place }", tags: "${ input.cities }", labels: "${ steps.first.output.labels }"',
    ),
    call('text: "${ steps.first.output.labels.anything }", topWords: "${ size(input.cities) + 1 }"'),
    call('text: "${ has(steps.first.output.longest) ? steps.first.output.longest : input.city }"'),
    steps(
      '- { id: x, for_each: { items: "${ steps.first.output.list }" }, tool: { name: analyze, arguments: { text: "${ item.id }" } } }',
    ),
    steps(
      "- { id: s, tool: { name: stream, arguments: { text: abc } } }",
      '- { id: x, value: "${ steps.s.output.map(each, each.words) }" }',
    ),
    steps(
      "- { id: x, approval: { message: ok }, for_each: { items: input.cities } }",
      '- { id: y, value: "${ steps.x.output[0].by }" }',
    ),
    steps(
      "- { id: x, agent: { name: writer, task: hello } }",
      '- { id: y, value: "${ steps.x.output.json.anything }" }',
    ),
    steps("- { id: x, tool: { name: http, arguments: { text: abc, other: 5 } } }"),
  ])("Accepted: %#", (text) => {
    expect(problemsOf(text)).toEqual([]);
  });
});

describe("What expressions ask for", () => {
  test.each([
    [
      value("steps.first.output.wrds"),
      'ERROR UNKNOWN_FIELD steps[1].value: steps.first.output has no field "wrds" (did you mean "words"?): it has words',
    ],
    [
      value("input.citty"),
      'ERROR UNKNOWN_FIELD steps[1].value: input has no field "citty" (did you mean "city"?)',
    ],
    [value("steps.first.outptu"), 'ERROR UNKNOWN_FIELD steps[1].value: steps.first has no field "outptu"'],
    [value("run.name"), "ERROR UNKNOWN_FIELD steps[1].value: run has no field"],
    [
      value("steps.first.output.list.map(x, x.scor)"),
      'ERROR UNKNOWN_FIELD steps[1].value: x has no field "scor" (did you mean "score"?)',
    ],
    [
      value("steps.first.output.words.a"),
      'ERROR TYPE_MISMATCH steps[1].value: steps.first.output.words is an integer, and has no field "a"',
    ],
    [
      value("input.city + 1"),
      "ERROR TYPE_MISMATCH steps[1].value: + stands between a string and an integer; use string(…)",
    ],
    [value("input.city > 3"), "ERROR TYPE_MISMATCH steps[1].value: > stands between a string and an integer"],
    [
      value("input.days.startsWith('a')"),
      "ERROR TYPE_MISMATCH steps[1].value: startsWith(…) is a function of a string",
    ],
    [value("input.days.all(x, true)"), "ERROR TYPE_MISMATCH steps[1].value: all goes through a list"],
    [value("input.city && true"), "ERROR TYPE_MISMATCH steps[1].value: a side of && is a string"],
    [value("input.city == 3"), "WARNING TYPE_MISMATCH steps[1].value: == is always false"],
    [value("has(input.zip)"), "WARNING UNKNOWN_FIELD steps[1].value: is never true"],
    [
      steps("- { id: h, tool: { name: http } }", '- { id: x, value: "${ steps.h.output.fund }" }'),
      'WARNING UNKNOWN_FIELD steps[2].value: steps.h.output has no field "fund" (did you mean "found"?)',
    ],
    [
      steps("- { id: x, condition: input.city, wait: 1s }"),
      "ERROR TYPE_MISMATCH steps[1].condition: must be true or false, and is a string",
    ],
    [
      steps("- { id: x, for_each: { items: input.city }, wait: 1s }"),
      "ERROR TYPE_MISMATCH steps[1].for_each.items: must be a list, and is a string",
    ],
    [
      steps("- { id: v, value: { a: 1 } }", '- { id: x, value: "${ steps.v.output.b }" }'),
      'ERROR UNKNOWN_FIELD steps[2].value: steps.v.output has no field "b"',
    ],
    [
      `${steps("- { id: x, wait: 1s }")}output: "\${ steps.first.output.wrds }"`,
      "15 ERROR UNKNOWN_FIELD output",
    ],
  ])("%#", (text, problem) => {
    expect(problemsOf(text)).toEqual([expect.stringContaining(problem)]);
  });
});

test("Schemas that refer to themselves, and to nothing, are no obstacle", () => {
  const odd: JsonObject = {
    $ref: "#/$defs/a",
    $defs: { a: { anyOf: [{ $ref: "#/$defs/a" }, { $ref: "#/$defs/b" }] }, b: { $ref: "#/$defs/a" } },
  };
  const { workflow } = parseWorkflowText(call('text: "${ steps.first.output.x.y }"'));
  const odds = [odd, { $ref: "#/nowhere" }, { type: "what" }, { allOf: [{ type: "object" }] }];
  for (const schema of odds) {
    const found = workflow && checkWorkflow(workflow, { tools: () => tool(schema, schema) });
    expect(found?.problems.filter(({ severity }) => severity === WorkflowProblemSeverity.ERROR)).toEqual([]);
  }
});

test("A workflow of 1,000 steps that all are wrong has 1,000 problems, no more", () => {
  const many = Array.from(
    { length: 1_000 },
    (_, index) => `- { id: s${index}, depends_on: [nope], tool: { name: nope } }`,
  );
  expect(problemsOf(`name: a\nsteps:\n${many.map((line) => `  ${line}`).join("\n")}`)).toHaveLength(1_000);
});

test("A chain of 1,000 steps is checked to its end", () => {
  const chain = Array.from({ length: 999 }, (_, index) => {
    const before = index === 0 ? "first" : `s${index - 1}`;
    return `- { id: s${index}, tool: { name: analyze, arguments: { text: "\${ steps.${before}.output.longest }" } } }`;
  });
  expect(problemsOf(steps(...chain))).toEqual([]);
  expect(graphOf(steps(...chain))?.depth).toBe(1_000);
});

test("Steps that all come after each other are refused, in bounded time", () => {
  const { workflow } = parseWorkflowText("name: a\nsteps: [{ id: a, value: 1 }]");
  const [step] = workflow?.steps ?? [];
  expect.assert(workflow !== undefined && step !== undefined);
  const ids = Array.from({ length: 1_000 }, (_, index) => `s${index}`);
  const circle = ids.map((id) => ({ ...step, id, dependsOn: ids.filter((other) => other !== id) }));
  const { problems, graph } = checkWorkflow({ ...workflow, steps: circle }, options);
  expect(graph).toBeUndefined();
  expect(problems.length).toBeLessThan(50);
  expect(problems.map(({ reason }) => reason)).toEqual(
    expect.arrayContaining(["CYCLE", "TOO_MANY_DEPENDENCIES"]),
  );
  for (const { message } of problems) expect(message.length).toBeLessThan(1_000);
});

test("Expressions are counted before they are parsed", () => {
  const many = (count: number) => JSON.stringify(Array(count).fill("a ${ 1 } b"));
  expect(problemsOf(`name: a\nsteps: [{ id: a, value: ${many(2_000)} }]`)).toEqual([]);
  expect(problemsOf(`name: a\nsteps: [{ id: a, value: ${many(2_001)} }]`)).toEqual([
    expect.stringContaining("2 ERROR TOO_MANY_EXPRESSIONS steps[0]: the step has 2001 expressions"),
  ]);
  const six = Array.from({ length: 6 }, (_, index) => `  - { id: s${index}, value: ${many(1_700)} }`);
  expect(problemsOf(`name: a\nsteps:\n${six.join("\n")}`)).toEqual([
    expect.stringContaining("TOO_MANY_EXPRESSIONS steps: the workflow has 10200 expressions"),
  ]);
  const long = `\${ ${"1 + ".repeat(200)}1 }`;
  expect(problemsOf(`name: a\nsteps: [{ id: a, value: ${JSON.stringify(Array(50).fill(long))} }]`)).toEqual([
    expect.stringContaining("and may have 2000 of 32768"),
  ]);
});

test("One wrong argument does not hide another", () => {
  const wrong = "- { id: x, tool: { name: analyze, arguments: { text: 5, topwords: 1, topWords: no } } }";
  expect(problemsOf(steps(wrong))).toEqual([
    expect.stringContaining("UNKNOWN_ARGUMENT steps[1].tool.arguments.topwords"),
    expect.stringContaining("steps[1].tool.arguments.text"),
    expect.stringContaining("steps[1].tool.arguments.topWords"),
  ]);
});

test("Whether a step has an output is no question: it may be null", () => {
  expect(problemsOf(call("text: \"${ has(steps.first.output) ? 'yes' : 'no' }\""))).toEqual([
    expect.stringContaining("is always true: a step has it, be it null; write steps.first.output != null"),
  ]);
});

test("The example with everything has no problems", () => {
  const example = readFileSync(new URL("../../../examples/workflows/release.yaml", import.meta.url), "utf8");
  const { workflow } = parseWorkflowText(example);
  const found = workflow && checkWorkflow(workflow, { tools: () => tool({}, {}), checkSchedule });
  expect(found?.problems).toEqual([]);
});
