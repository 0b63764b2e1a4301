import { readFileSync } from "node:fs";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { type TestResult, TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { describe, expect, it } from "vitest";
import { createGoTestParser, type GoTestParserOptions } from "./go-test-json.ts";
import { goTestName } from "./go-test-name.ts";

/** What Go 1.26 wrote about packages that pass, fail, panic, run out of time, leave early and cannot be built. */
const RECORDED = readFileSync(new URL("fixtures/go-test-1.26.jsonl", import.meta.url), "utf8")
  .trim()
  .split("\n");

function parse(
  lines: readonly (string | object)[],
  options: GoTestParserOptions = { liveOutput: false },
): TestEvent[] {
  const parser = createGoTestParser(options);
  const events = lines.flatMap((line) => parser.line(typeof line === "string" ? line : JSON.stringify(line)));
  return [...events, ...parser.end()].map((event: MessageInitShape<typeof TestEventSchema>) =>
    create(TestEventSchema, event),
  );
}

function results(events: readonly TestEvent[]): Map<string, TestResult> {
  const found = new Map<string, TestResult>();
  for (const { kind } of events) {
    if (kind.case === "testEnded" && kind.value.test) {
      found.set(`${kind.value.test.file.split("/").at(-1)} ${goTestName(kind.value.test)}`, kind.value);
    }
  }
  return found;
}

function files(events: readonly TestEvent[]) {
  return new Map(
    events.flatMap(({ kind }) =>
      kind.case === "fileEnded" ? [[kind.value.file.split("/").at(-1) ?? "", kind.value] as const] : [],
    ),
  );
}

const recorded = parse(RECORDED);
const recordedResults = results(recorded);
const failure = (name: string) => recordedResults.get(name)?.attempts[0]?.failures[0];

describe("what go test -json writes", () => {
  it("tells how each test ended, as go counted them", () => {
    const verdicts = RECORDED.map(
      (line) => JSON.parse(line) as { Action: string; Test?: string; Package?: string },
    );
    for (const { Action, Test, Package } of verdicts) {
      const status = { pass: TestStatus.PASSED, fail: TestStatus.FAILED, skip: TestStatus.SKIPPED }[Action];
      if (status !== undefined && Test !== undefined) {
        expect([Test, recordedResults.get(`${Package?.split("/").at(-1)} ${Test}`)?.status]).toEqual([
          Test,
          status,
        ]);
      }
    }
  });

  it("begins every test before it ends it", () => {
    const running = new Set<string>();
    for (const { kind } of recorded) {
      if (kind.case === "testStarted" && kind.value.test) {
        running.add(`${kind.value.test.file} ${goTestName(kind.value.test)}`);
      } else if (kind.case === "testEnded" && kind.value.test) {
        expect(running.delete(`${kind.value.test.file} ${goTestName(kind.value.test)}`)).toBe(true);
      }
    }
    expect(running).toEqual(new Set());
  });

  it("puts subtests below their tests", () => {
    expect(recordedResults.get("basic TestSub/a_b/x/y")?.test).toMatchObject({
      framework: "go-test",
      file: "example.com/demo/basic",
      suitePath: ["TestSub", "a_b", "x"],
      name: "y",
    });
  });

  it("has the words of a failure, and output without the frame that go puts around it", () => {
    expect(failure("basic TestFail")?.message).toContain("want 1\ngot 2");
    const { attempts } = recordedResults.get("basic TestPass") ?? {};
    expect(attempts?.[0]?.stdout).toBe("    basic_test.go:10: hello\nout\nerr\n");
    expect(failure("basic TestSub")?.message).toBe("Subtests failed: TestSub/a_b");
  });

  it("tells an example's output from what it should be", () => {
    expect(failure("basic ExampleAdd_bad")).toMatchObject({ actual: "3", expected: "4" });
  });

  it("says why a test was skipped", () => {
    expect(recordedResults.get("basic TestSkip")?.message).toBe("not today");
  });

  it("has durations and times", () => {
    const { duration, startTime } = recordedResults.get("basic TestParA") ?? {};
    expect(duration && durationMs(duration)).toBe(30);
    expect(startTime && timestampMs(startTime)).toBeGreaterThan(Date.parse("2020-01-01"));
  });

  it("tells a panic with its stack, and which test it interrupted", () => {
    expect(failure("panics TestBoom")).toMatchObject({
      type: "panic",
      message: expect.stringContaining("assignment to entry in nil map"),
      stack: expect.stringContaining("p_test.go:7"),
    });
    expect(recordedResults.get("panics TestPar")?.status).toBe(TestStatus.INTERRUPTED);
    expect(recordedResults.has("panics TestNever")).toBe(false);
  });

  it("fails the test during which a package ran out of time", () => {
    expect(recordedResults.get("timeout TestSlow")?.status).toBe(TestStatus.FAILED);
    expect(failure("timeout TestSlow")).toMatchObject({
      type: "timeout",
      message: "test timed out after 2s",
    });
  });

  it("tells why a package failed besides its tests", () => {
    const ended = files(recorded);
    expect(ended.get("broken")?.failures).toMatchObject([
      { type: "build failed", message: expect.stringContaining("b_test.go:5:28: undefined: undefined") },
    ]);
    expect(ended.get("initpanic")?.failures).toMatchObject([{ type: "panic", message: "no config" }]);
    expect(ended.get("exits")?.failures).toMatchObject([{ message: "leaving" }]);
    expect(ended.get("basic")?.failures).toEqual([]);
  });

  it("is told to watchers while it is written, except for the frame", () => {
    const live = parse(RECORDED, {}).flatMap(({ kind }) => (kind.case === "output" ? [kind.value] : []));
    expect(live.find(({ text }) => text === "out\n")?.test?.name).toBe("TestPass");
    expect(live.find(({ text }) => text === "leaving\n")?.test).toBeUndefined();
    expect(live.filter(({ text }) => /^(=== |--- (PASS|SKIP)|PASS)/.test(text))).toEqual([]);
    // Without these lines nobody who looks on could tell which test failed.
    const verdicts = live.map(({ text }) => text).filter((text) => /^(--- |FAIL|ok)/.test(text));
    expect(verdicts).toContain("--- FAIL: TestFail (0.00s)\n");
    expect(verdicts.some((text) => /^FAIL\t/.test(text))).toBe(true);
  });
});

describe("odd things in what go test -json writes", () => {
  const at = { Package: "example.com/p" };

  it("counts a test that runs again as another one", () => {
    const once = [
      { Action: "run", ...at, Test: "TestA" },
      { Action: "pass", ...at, Test: "TestA", Elapsed: 0.1 },
    ];
    const occurrences = parse([...once, ...once]).flatMap(({ kind }) =>
      kind.case === "testEnded" ? [kind.value.test?.occurrence] : [],
    );
    expect(occurrences).toEqual([0, 1]);
  });

  it("passes a benchmark that says nothing of its end", () => {
    const events = parse([
      { Action: "run", ...at, Test: "BenchmarkAdd" },
      { Action: "output", ...at, Test: "BenchmarkAdd", Output: "BenchmarkAdd-2 \t100\t 0.3 ns/op\n" },
      { Action: "pass", ...at, Elapsed: 1 },
    ]);
    expect(results(events).get("p BenchmarkAdd")?.status).toBe(TestStatus.PASSED);
  });

  it("gives up on a test whose runner was killed, and leaves to others what happens to its package", () => {
    const killed = [
      { Action: "start", ...at },
      { Action: "run", ...at, Test: "TestA" },
    ];
    expect(parse(killed).map(({ kind }) => kind.case)).toEqual(["fileStarted", "testStarted"]);
    const reported = parse([
      ...killed,
      { Action: "output", ...at, Output: "signal: killed\n" },
      { Action: "fail", ...at, Elapsed: 1 },
    ]);
    expect(results(reported).get("p TestA")?.status).toBe(TestStatus.INTERRUPTED);
    expect(files(reported).get("p")?.failures).toMatchObject([{ message: "signal: killed" }]);
  });

  it("warns of results that are not new", () => {
    const events = parse([
      { Action: "start", ...at },
      { Action: "output", ...at, Output: "ok  \texample.com/p\t(cached)\n" },
      { Action: "pass", ...at, Elapsed: 0 },
    ]);
    expect(events.at(-1)?.kind).toMatchObject({
      case: "problem",
      value: { message: expect.stringContaining("1 package come from Go's cache") },
    });
  });

  it("keeps attributes of tests", () => {
    const events = parse([
      { Action: "attr", ...at, Test: "TestA", Key: "owner", Value: "team a" },
      { Action: "pass", ...at, Test: "TestA", Elapsed: 0 },
    ]);
    expect(results(events).get("p TestA")?.properties).toEqual({ owner: "team a" });
  });

  it("takes lines that are none of go's for output", () => {
    const lines = [
      "go: downloading example.com/x v1.0.0",
      "{broken",
      '{"Action":1}',
      "[]",
      "null",
      '"text"',
      '{"a":1}',
    ];
    const said = parse(lines, {}).map(({ kind }) => (kind.case === "output" ? kind.value.text : kind.case));
    expect(said).toEqual(lines.map((line) => `${line}\n`));
  });

  it("survives events that make no sense", () => {
    const events = parse([
      { Action: "pass", ...at, Test: "TestUnknown", Elapsed: -1, Time: "yesterday" },
      { Action: "fail", Package: "", Test: "TestX" },
      { Action: "output", ...at, Test: "TestX", Output: 5 },
      { Action: "never heard of", ...at },
      { Action: "fail", ...at, Elapsed: "long" },
    ]);
    expect(results(events).get("p TestUnknown")).toMatchObject({ status: TestStatus.PASSED });
    expect(results(events).get("p TestX")).toMatchObject({ status: TestStatus.INTERRUPTED });
  });

  it("bounds names and what tests write", () => {
    const deep = Array.from({ length: 100 }, (_, level) => `level${level}`).join("/");
    const events = parse([
      { Action: "output", ...at, Test: deep, Output: "x".repeat(100_000) },
      { Action: "output", ...at, Test: deep, Output: "the end" },
      { Action: "fail", ...at, Test: deep, Elapsed: 0 },
      { Action: "pass", ...at, Test: `Test${"y".repeat(10_000)}`, Elapsed: 0 },
    ]);
    const [first, second] = [...results(events).values()];
    expect(first?.test?.suitePath).toHaveLength(64);
    expect(first?.test?.name).toMatch(/^level64\/.*\/level99$/);
    expect(first?.attempts[0]?.stdout.length).toBeLessThanOrEqual(65_536);
    expect(first?.attempts[0]?.stdout).toMatch(/^xxx[\s\S]*characters left out[\s\S]*the end$/);
    expect(second?.test?.name).toHaveLength(4096);
  });
});
