import { toJsonString } from "@bufbuild/protobuf";
import { type Duration, timestampDate } from "@bufbuild/protobuf/wkt";
import {
  type TestAttempt,
  type TestFailure,
  TestIdentitySchema,
  type TestResult,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { MARK } from "../junit/marks.ts";
import { attemptsOf, isFailing } from "./attempts.ts";
import { attribute, content } from "./xml.ts";

/**
 * Writes JUnit XML with reruns as Surefire writes them: failures before a pass are `<flakyFailure>`, those after a first
 * failure `<rerunFailure>`. Of a rerun the first failure is told. What the format has no place for stands in properties
 * whose names begin with `toolplane.`, so that reading it gives the same identities, statuses and durations.
 */
export async function* writeJunit(run: TestRun, results: AsyncIterable<TestResult>): AsyncGenerator<string> {
  const start = run.startTime ?? run.createTime;
  const about =
    attribute("name", run.project) +
    totals(run) +
    (start === undefined ? "" : attribute("timestamp", timestampDate(start).toISOString()));
  yield `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="toolplane">\n<testsuite${about}>\n`;
  for await (const result of results) {
    yield testCase(result);
  }
  yield "</testsuite>\n</testsuites>\n";
}

/** Only of a run that has ended: others grow while they are written. */
function totals({ end, counts, testTime }: TestRun): string {
  if (end === undefined || counts === undefined) {
    return "";
  }
  return (
    attribute("tests", String(counts.total)) +
    attribute("failures", String(counts.failed)) +
    attribute("errors", String(counts.errors + counts.interrupted)) +
    attribute("skipped", String(counts.skipped + counts.notRun + counts.expectedFailures)) +
    time(testTime)
  );
}

function testCase(result: TestResult): string {
  const { test, duration, startTime, line } = result;
  if (test === undefined) {
    return "";
  }
  const name = test.parameters === "" ? test.name : `${test.name}[${test.parameters}]`;
  const attributes =
    attribute("name", name) +
    attribute("classname", test.suitePath.join(" > ") || test.file) +
    (test.file === "" ? "" : attribute("file", test.file)) +
    (line === 0 ? "" : attribute("line", String(line))) +
    time(duration) +
    (startTime === undefined ? "" : attribute("timestamp", timestampDate(startTime).toISOString()));
  return `<testcase${attributes}>\n${properties(result)}${outcome(result)}</testcase>\n`;
}

function properties(result: TestResult): string {
  const { test, status, tags, message, traceId } = result;
  const marks: [string, string][] = [
    ...(test === undefined
      ? []
      : [[MARK.test, jsonFor(toJsonString(TestIdentitySchema, test))] as [string, string]]),
    [MARK.status, TestStatus[status]],
    ...tags.map((tag): [string, string] => [MARK.tag, tag]),
    ...(message === "" ? [] : [[MARK.message, message] as [string, string]]),
    ...(traceId === "" ? [] : [[MARK.traceId, traceId] as [string, string]]),
    ...Object.entries(result.properties),
  ];
  const lines = marks.map(
    ([name, value]) => `<property${attribute("name", name)}${attribute("value", value)}/>\n`,
  );
  return `<properties>\n${lines.join("")}</properties>\n`;
}

/** JSON without the two characters that XML cannot have and JSON does not escape. */
function jsonFor(json: string): string {
  return json.replaceAll("\uFFFE", "\\ufffe").replaceAll("\uFFFF", "\\uffff");
}

function outcome(result: TestResult): string {
  const [earlier, last] = attemptsOf(result);
  const failing = earlier.filter(({ status }) => isFailing(status));
  if (!isFailing(result.status)) {
    const skipped = isSkipped(result.status) ? `<skipped${attribute("message", result.message)}/>\n` : "";
    return failing.map((attempt) => rerun("flaky", attempt)).join("") + skipped + written(last);
  }
  const [first = last, ...others] = [...failing, { ...last, status: result.status }];
  return failures(first) + written(first) + others.map((attempt) => rerun("rerun", attempt)).join("");
}

function isSkipped(status: TestStatus): boolean {
  return [TestStatus.SKIPPED, TestStatus.TODO, TestStatus.NOT_RUN, TestStatus.EXPECTED_FAILURE].includes(
    status,
  );
}

function failures({ status, failures: found }: TestAttempt): string {
  const element = isError(status) ? "error" : "failure";
  return found.length === 0
    ? `<${element}/>\n`
    : found
        .map((failure) => `<${element}${told(failure)}>${content(stackOf(failure))}</${element}>\n`)
        .join("");
}

function rerun(kind: "flaky" | "rerun", attempt: TestAttempt): string {
  const [failure] = attempt.failures;
  const element = `${kind}${isError(attempt.status) ? "Error" : "Failure"}`;
  const stack = failure === undefined ? "" : `<stackTrace>${content(stackOf(failure))}</stackTrace>\n`;
  const attributes = (failure === undefined ? "" : told(failure)) + time(attempt.duration);
  return `<${element}${attributes}>${stack}${written(attempt)}</${element}>\n`;
}

function isError(status: TestStatus): boolean {
  return status === TestStatus.ERROR || status === TestStatus.INTERRUPTED;
}

function told({ message, type }: TestFailure): string {
  return attribute("message", message) + attribute("type", type);
}

/** Where it happened; else, and for those who cannot be shown a difference, what was expected and found. */
function stackOf({ stack, expected, actual }: TestFailure): string {
  return expected === "" && actual === ""
    ? stack
    : `${stack}\nExpected: ${expected}\nActual: ${actual}\n`.trimStart();
}

function written({ stdout, stderr }: TestAttempt): string {
  return (
    (stdout === "" ? "" : `<system-out>${content(stdout)}</system-out>\n`) +
    (stderr === "" ? "" : `<system-err>${content(stderr)}</system-err>\n`)
  );
}

function time(duration: Duration | undefined): string {
  return duration === undefined ? "" : attribute("time", secondsOf(duration));
}

/** In seconds, to the nanosecond. */
export function secondsOf({ seconds, nanos }: Duration): string {
  const fraction = String(nanos)
    .padStart(9, "0")
    .replace(/0{0,6}$/, "");
  return `${seconds}.${fraction}`;
}
