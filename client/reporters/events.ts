import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs, timestampNow } from "@bufbuild/protobuf/wkt";
import { ProblemSeverity } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { TestResultSchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { boundedName, boundedText } from "../runners/bounded-text.ts";
import type { TestIdentityInit } from "../runners/occurrences.ts";
import type { TestEventInit } from "../runners/runner.ts";

export type TestResultInit = MessageInitShape<typeof TestResultSchema>;

/** As many as one event may name. */
const MAX_TESTS = 5_000;
const MAX_TEXT = 65_536;
const MAX_SUITES = 64;

/** Stands for the name of a test that has none, because an identity needs one. */
export const UNNAMED = "(unnamed)";

type Kind = NonNullable<TestEventInit["kind"]>;

/** An event of this moment. */
export function eventOf(kind: Kind): TestEventInit {
  return { time: timestampNow(), kind };
}

/** Names parts of an identity as the contract bounds them, so that no two tests become one. */
export function identityOf(test: {
  readonly framework: string;
  readonly file: string;
  readonly suitePath: readonly string[];
  readonly name: string;
  readonly variant?: string | undefined;
}): TestIdentityInit {
  const { suitePath } = test;
  // Whatever is nested deeper than the contract allows shares its innermost suite.
  const suites =
    suitePath.length <= MAX_SUITES
      ? suitePath
      : [...suitePath.slice(0, MAX_SUITES - 1), suitePath.slice(MAX_SUITES - 1).join(" > ")];
  return {
    framework: test.framework,
    file: boundedName(test.file, 1_024),
    suitePath: suites.map((suite) => boundedName(suite, 1_024)),
    name: boundedName(test.name || UNNAMED, 4_096),
    variant: boundedName(test.variant ?? "", 256),
  };
}

export function testsFound(tests: readonly TestIdentityInit[]): TestEventInit[] {
  const events: TestEventInit[] = [];
  for (let from = 0; from < tests.length; from += MAX_TESTS) {
    events.push(eventOf({ case: "testsFound", value: { tests: tests.slice(from, from + MAX_TESTS) } }));
  }
  return events;
}

/** What a test wrote, in as many events as it takes. */
export function outputOf(text: string, stderr: boolean, test?: TestIdentityInit): TestEventInit[] {
  const events: TestEventInit[] = [];
  for (let from = 0; from < text.length; from += MAX_TEXT) {
    const value = { text: text.slice(from, from + MAX_TEXT), stderr, ...(test && { test }) };
    events.push(eventOf({ case: "output", value }));
  }
  return events;
}

/** Something outside of tests went wrong. */
export function problemOf(message: string, place = ""): TestEventInit {
  return eventOf({
    case: "problem",
    value: {
      severity: ProblemSeverity.ERROR,
      message: boundedText(message || "an error without a message"),
      place: boundedName(place, 1_024),
    },
  });
}

/** Durations of runners are milliseconds, with fractions, and now and then missing or negative. */
export function durationOf(milliseconds: number | null | undefined) {
  return typeof milliseconds === "number" && Number.isFinite(milliseconds)
    ? { duration: nanosecondsOf(Math.max(0, milliseconds)) }
    : {};
}

function nanosecondsOf(milliseconds: number) {
  const whole = Math.trunc(milliseconds);
  const duration = durationFromMs(whole);
  duration.nanos += Math.trunc((milliseconds - whole) * 1e6);
  return duration;
}

/** Milliseconds since 1970, which some runners leave out. */
export function startTimeOf(milliseconds: number | null | undefined) {
  return typeof milliseconds === "number" && Number.isFinite(milliseconds) && milliseconds > 0
    ? { startTime: timestampFromMs(Math.trunc(milliseconds)) }
    : {};
}
