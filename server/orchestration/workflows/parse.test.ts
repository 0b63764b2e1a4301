import { expect, test } from "vitest";
import { parseWorkflowText } from "./parse.ts";

function problemsOf(text: string): string[] {
  const { workflow, problems } = parseWorkflowText(text);
  expect(workflow).toBeUndefined();
  return problems.map(
    ({ line, column, reason, field, message }) => `${line}:${column} ${reason} ${field}: ${message}`,
  );
}

test("YAML and JSON say the same, in both names of fields", () => {
  const yaml = parseWorkflowText(
    "name: a\nmax_concurrency: 3\nsteps:\n  - id: x\n    dependsOn: [y]\n    wait: 90s\n",
  );
  const json = parseWorkflowText(
    '{\n\t"name": "a", "maxConcurrency": 3,\n\t"steps": [{"id": "x", "depends_on": ["y"], "wait": "1m30s"}]\n}',
  );
  expect(yaml.problems).toEqual([]);
  expect(json.workflow).toEqual(yaml.workflow);
  expect(yaml.place("steps[0].depends_on[0]")).toEqual({ line: 5, column: 17 });
  expect(json.place("max_concurrency")).toEqual({ line: 2, column: 15 });
});

test.each([
  ["90s", 90n, 0],
  ["500ms", 0n, 500_000_000],
  ["5m", 300n, 0],
  ["1h30m", 5400n, 0],
  ["2d", 172_800n, 0],
  ["0.2s", 0n, 200_000_000],
])("A duration may be written as %s", (text, seconds, nanos) => {
  const { workflow } = parseWorkflowText(`name: a\ntimeout: ${text}\nsteps: []`);
  expect(workflow?.timeout).toMatchObject({ seconds, nanos });
});

test("Texts that look like durations stay as they are in values", () => {
  const { workflow } = parseWorkflowText("name: a\nsteps: [{id: a, value: {timeout: 5m}}]");
  const value = workflow?.steps[0]?.action.value;
  expect(JSON.stringify(value)).toContain('"5m"');
});

test("What stands where is known for fields that are there, and for those that are missing", () => {
  const { place } = parseWorkflowText(
    "name: a\nsteps:\n  - id: x\n    tool:\n      name: t\n      arguments:\n        a b: 1\n",
  );
  expect(place('steps[0].tool.arguments["a b"]')).toEqual({ line: 7, column: 9 });
  expect(place("steps[0].tool.arguments.c.d")).toEqual({ line: 6, column: 7 });
  expect(place("steps[7]")).toEqual({ line: 2, column: 1 });
  expect(place("")).toEqual({ line: 1, column: 1 });
});

test("Anchors and merges are understood", () => {
  const { workflow } = parseWorkflowText(
    "name: a\nsteps:\n  - &first {id: x, retry: &r {attempts: 3}, wait: 1s}\n  - <<: *first\n    id: y\n  - {id: z, retry: *r, wait: 2s}\n",
  );
  expect(workflow?.steps.map(({ id, retry }) => [id, retry?.attempts])).toEqual([
    ["x", 3],
    ["y", 3],
    ["z", 3],
  ]);
});

test.each([
  ["name: a\n\tsteps: []", "2:1 SYNTAX : a tab indents this line"],
  ["name: a\nname: b\nsteps: []", '2:1 DUPLICATE_KEY name: "name" is there twice'],
  ["name: a\n---\nname: b", "2:1 SYNTAX : a second document begins here"],
  ["", "1:1 SYNTAX : the text is empty"],
  ["# nothing", "SYNTAX : the text is empty"],
  ["just words", "1:1 SYNTAX : must be an object"],
  ["name: [a", "SYNTAX"],
  [
    "name: a\nsteps:\n  - id: x\n    tol: {name: t}",
    '4:5 UNKNOWN_FIELD steps[0].tol: is no known field (did you mean "tool"?)',
  ],
  ["name: a\nsteps: [{id: x, wait: soon}]", "2:17 INVALID_VALUE steps[0].wait"],
  ["name: 5\nsteps: []", "1:1 "],
  ["name: a\nsteps: [{id: x, value: .nan}]", "2:24 SYNTAX steps[0].value: .nan has no JSON"],
  ["name: !thing a", "1:7 SYNTAX : Unresolved tag: !thing"],
  ["a: &a [*a]", "1:8 SYNTAX a[0]: *a stands within what it repeats"],
  ["a: *b", "SYNTAX"],
  ["? [a]\n: b", "SYNTAX : a key must be a text"],
  ['name: "\\ud800"', "SYNTAX name: the text is not valid Unicode"],
  ["name: \ud800", "1:1 SYNTAX : the text is not valid Unicode"],
])("%j is refused: %s", (text, problem) => {
  expect(problemsOf(text)[0]).toContain(problem);
});

const bomb = Array.from({ length: 9 }, (_, level) => {
  const items = level === 0 ? "1" : `*l${level - 1}`;
  return `k${level}: &l${level} [${Array(9).fill(items).join(", ")}]`;
}).join("\n");

test.each([
  ["a bomb of aliases", bomb, "more than 200000 values"],
  ["a text of more than 256 KiB", `# ${"x".repeat(256 * 1024)}`, "may have 262144"],
  ["deep lists", "[".repeat(5_000), "nests too deeply"],
  ["deep lists that end", `${"[".repeat(5_000)}${"]".repeat(5_000)}`, "nests too deeply"],
  ["lists of more than 100 levels", `${"[".repeat(150)}${"]".repeat(150)}`, "nests deeper than 100 levels"],
  ["deep sequences", "- ".repeat(20_000), "nests too deeply"],
  [
    "very many keys",
    Array.from({ length: 10_000 }, (_, index) => `k${index}: 1`).join("\n"),
    "is no known field",
  ],
  ["very many words", `a: [${"1,".repeat(60_000)}]`, "more than 100000 words and marks"],
  ["very many errors", `a: "${"\\q".repeat(60_000)}"`, "Invalid escape"],
  ["binary garbage", String.fromCharCode(...Array.from({ length: 256 }, (_, code) => code)), ""],
])("%s are refused, in bounded time", (_, text, message) => {
  expect(problemsOf(text)[0]).toContain(message);
});

test("Triggers may be written short, and fields that begin with x- are left out", () => {
  const { workflow, problems } = parseWorkflowText(`name: a
x-retry: &retry { attempts: 3 }
steps:
  - { id: a, value: 1, retry: *retry }
  - { id: b, value: 1, depends_on: [a], trigger: on_failure }
  - { id: c, value: 1, depends_on: [a], trigger: always }
  - { id: d, value: 1, depends_on: [a], trigger: STEP_TRIGGER_ALWAYS }`);
  expect(problems).toEqual([]);
  expect(workflow?.steps.map(({ trigger }) => trigger)).toEqual([0, 1, 2, 2]);
  expect(workflow?.steps[0]?.retry?.attempts).toBe(3);
});

test("A trigger that there is not is told with those that there are", () => {
  expect(problemsOf("name: a\nsteps: [{ id: a, value: 1, trigger: failure }]")).toEqual([
    expect.stringContaining('expected one of "on_failure", "always", got the string "failure"'),
  ]);
});

test("Windows line ends, a byte order mark, anchors and merges are read", () => {
  const { workflow, problems } = parseWorkflowText(
    [
      "\uFEFFname: a",
      "steps:",
      "  - id: a",
      "    tool: &tool { name: t, arguments: { text: hi } }",
      "  - id: b",
      "    dependsOn: [a]",
      "    tool: { <<: *tool, environment: prod }",
      "    continueOnFailure: true",
      "",
    ].join("\r\n"),
  );
  expect(problems).toEqual([]);
  expect(workflow?.steps[1]?.action.value).toMatchObject({
    name: "t",
    environment: "prod",
    arguments: { text: "hi" },
  });
});
