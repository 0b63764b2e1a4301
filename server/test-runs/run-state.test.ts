import { create } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunEndReason, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, test } from "vitest";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { countsAtEnd, createRunState, lostTests } from "./run-state.ts";
import { ended, event, found, identity, reported, started } from "./test-support/events.ts";
import { openReplica } from "./test-support/open-replica.ts";
import { endOf } from "./verdict.ts";

type Events = ReturnType<typeof ended>[];

function fold(events: Events) {
  const state = createRunState();
  for (const [index, each] of events.entries()) {
    state.apply(each, index + 1, 10);
  }
  return state;
}

const none = { failures: 0, alike: 0 };
const ranToItsEnd = { reason: TestRunEndReason.UNSPECIFIED, message: "" };

const statuses = [
  TestStatus.PASSED,
  TestStatus.FAILED,
  TestStatus.SKIPPED,
  TestStatus.TODO,
  TestStatus.EXPECTED_FAILURE,
  TestStatus.UNEXPECTED_PASS,
  TestStatus.ERROR,
  TestStatus.INTERRUPTED,
  TestStatus.NOT_RUN,
];

const name = fc.constantFrom("a", "b", "c", "d", "e");
const anyEvent = fc.oneof(
  fc.array(name, { maxLength: 3 }).map((names) => found(...names)),
  name.map((each) => started(each)),
  fc.tuple(name, fc.constantFrom(...statuses)).map(([each, status]) => ended(each, status)),
  name.map((each) =>
    event({
      case: "attemptEnded",
      value: { test: identity(each), attempt: 1, result: { status: TestStatus.FAILED } },
    }),
  ),
);
const anyRun = fc.array(anyEvent, { maxLength: 40 });

describe("what the events of a run come to", () => {
  it("counts each test once, by its last result", () => {
    fc.assert(
      fc.property(anyRun, (events) => {
        const state = fold(events);
        const last = new Map<string, TestStatus>();
        const known = new Set<string>();
        for (const { kind } of events) {
          if (kind.case === "testsFound") {
            for (const each of kind.value.tests) {
              known.add(each.name);
            }
          } else if (kind.case === "testEnded") {
            last.set(kind.value.test?.name ?? "", kind.value.status);
            known.add(kind.value.test?.name ?? "");
          } else if (kind.case === "testStarted" || kind.case === "attemptEnded") {
            known.add(kind.value.test?.name ?? "");
          }
        }
        const count = (...wanted: TestStatus[]) =>
          [...last.values()].filter((status) => wanted.includes(status)).length;
        expect(state.counts).toMatchObject({
          total: known.size,
          passed: count(TestStatus.PASSED),
          failed: count(TestStatus.FAILED, TestStatus.UNEXPECTED_PASS),
          skipped: count(TestStatus.SKIPPED, TestStatus.TODO),
          expectedFailures: count(TestStatus.EXPECTED_FAILURE),
          errors: count(TestStatus.ERROR),
          interrupted: count(TestStatus.INTERRUPTED),
          notRun: count(TestStatus.NOT_RUN),
        });
        expect(state.testTimeUs).toBe(last.size * 5_000);
        expect([...state.unreported.values()].map((each) => each.name).toSorted()).toEqual(
          [...known].filter((each) => !last.has(each)).toSorted(),
        );
      }),
    );
  });

  it("leaves no test without a status once the run has ended, and foresees the counts", () => {
    fc.assert(
      fc.property(anyRun, (events) => {
        const state = fold(events);
        const foreseen = countsAtEnd(state);
        const lost = [...lostTests(state)].length;
        const open = state.unreported.size;
        state.apply(create(TestEventSchema, { kind: { case: "ended", value: {} } }), events.length + 1, 1);
        const { total, flaky: _, ...byStatus } = state.counts;
        expect(Object.values(byStatus).reduce((sum, each) => sum + each, 0)).toBe(total);
        expect(state.counts).toEqual(foreseen);
        expect(lost).toBe(open);
        expect(state.running.size + state.unreported.size).toBe(0);
      }),
    );
  });

  it("is the same when nothing but a part of the events is known first", () => {
    fc.assert(
      fc.property(anyRun, fc.nat(40), (events, cut) => {
        const whole = fold(events);
        const parts = fold(events.slice(0, cut));
        events.slice(cut).forEach((each, index) => {
          parts.apply(each, Math.min(cut, events.length) + index + 1, 10);
        });
        expect(parts).toEqual(whole);
      }),
    );
  });

  it("calls a test flaky that passed after an attempt that failed", () => {
    const attempt = event({
      case: "attemptEnded",
      value: { test: identity("a"), attempt: 1, result: { status: TestStatus.FAILED } },
    });
    expect(fold([attempt, ended("a"), ended("b")]).counts).toMatchObject({ passed: 2, flaky: 1 });
    expect(fold([attempt, ended("a"), ended("a", TestStatus.FAILED)]).counts).toMatchObject({ flaky: 0 });
  });

  it("knows which attempt of which test runs, the longest-running first", () => {
    const state = fold([started("a"), started("b"), started("c", 2), ended("b")]);
    expect([...state.running.values()].map(({ test: { name: each }, attempt }) => [each, attempt])).toEqual([
      ["a", 1],
      ["c", 2],
    ]);
  });
});

describe("the verdict", () => {
  const file = (path: string, message?: string) =>
    event({
      case: "fileEnded",
      value: { file: path, failures: message === undefined ? [] : [{ message }] },
    });

  it.each([
    ["no test failed", [ended("a")], { exitCode: 0 }, TestRunState.PASSED, TestRunEndReason.UNSPECIFIED],
    ["there were no tests", [], { exitCode: 0 }, TestRunState.PASSED, TestRunEndReason.UNSPECIFIED],
    [
      "a test failed",
      [ended("a", TestStatus.FAILED)],
      { exitCode: 1 },
      TestRunState.FAILED,
      TestRunEndReason.UNSPECIFIED,
    ],
    [
      "a file could not be loaded",
      [file("a", "syntax")],
      { exitCode: 1 },
      TestRunState.FAILED,
      TestRunEndReason.UNSPECIFIED,
    ],
    [
      "the runner complained although all tests passed",
      [ended("a")],
      { exitCode: 3 },
      TestRunState.ERROR,
      TestRunEndReason.RUNNER_ERROR,
    ],
    ["a signal ended it", [ended("a")], { signal: "SIGSEGV" }, TestRunState.ERROR, TestRunEndReason.CRASHED],
    [
      "it ended in the middle of a test",
      [started("a")],
      { exitCode: 0 },
      TestRunState.ERROR,
      TestRunEndReason.CRASHED,
    ],
    [
      "it stopped after the first failure",
      [found("a", "b"), ended("a", TestStatus.FAILED)],
      { exitCode: 1 },
      TestRunState.FAILED,
      TestRunEndReason.UNSPECIFIED,
    ],
  ] as const)("when %s", (_, events, outcome, state, reason) => {
    const end = endOf(fold([...events]), { ...ranToItsEnd, ...outcome }, none);
    expect({ state: end.state, reason: end.reason }).toEqual({ state, reason });
  });

  it("blames the environment where many tests fail alike, and not where they fail each in its own way", () => {
    const failing = Array.from({ length: 10 }, (_, index) => ended(`t${index}`, TestStatus.FAILED));
    const state = fold([...failing, ended("fine")]);
    const verdict = (alike: number) =>
      endOf(state, ranToItsEnd, { failures: 10, alike }).infrastructureFailure;
    expect([verdict(10), verdict(8), verdict(7)]).toEqual([true, true, false]);
    expect(endOf(fold(failing.slice(1)), ranToItsEnd, { failures: 9, alike: 9 }).infrastructureFailure).toBe(
      false,
    );
  });

  it("blames the environment where not one of several files can be loaded", () => {
    const files = ["a", "b", "c"].map((path) => file(path, "cannot connect"));
    expect(endOf(fold(files), ranToItsEnd, none).infrastructureFailure).toBe(true);
    expect(endOf(fold([...files, file("d")]), ranToItsEnd, none).infrastructureFailure).toBe(false);
    expect(endOf(fold([...files, ended("x")]), ranToItsEnd, none).infrastructureFailure).toBe(false);
  });
});

describe("what is stored", () => {
  let database: Database;

  beforeAll(async () => {
    database = await openTestDatabase();
  });

  afterAll(() => database.close());

  test("is what the events come to, however they are cut into batches and whichever replica takes them", async () => {
    const replicas = [await openReplica(database), await openReplica(database)];
    await fc.assert(
      fc.asyncProperty(anyRun, fc.infiniteStream(fc.nat(5)), async (events, random) => {
        const [first] = replicas;
        const run = await first?.runs.create(reported());
        const id = run?.id ?? "";
        let position = 1;
        while (position <= events.length) {
          const { value: size = 1 } = random.next();
          const { value: replica = 0 } = random.next();
          const batch = events.slice(position - 1, position + size);
          const { runs } = replicas[replica % 2] ?? first ?? expect.fail("no replica");
          await runs.append(id, "", position, structuredClone(batch));
          position += batch.length;
        }
        const over = await first?.runs.finish(id, ranToItsEnd);
        const state = fold(events);
        expect(over?.counts).toMatchObject(countsAtEnd(state));
        expect(over?.testTime && durationMs(over.testTime)).toBe(state.testTimeUs / 1e3);
        const stored = await first?.queries.loadRunResults(id);
        expect(stored?.results).toHaveLength(state.counts.total);
        const passed = stored?.results.filter(({ status }) => status === TestStatus.PASSED);
        expect(passed).toHaveLength(state.counts.passed);
        expect(passed?.filter(({ attempts }) => attempts > 1)).toHaveLength(state.counts.flaky);
      }),
      { numRuns: 25 },
    );
  });
});
