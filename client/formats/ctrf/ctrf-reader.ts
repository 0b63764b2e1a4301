import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { TestIdentitySchema, TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { getSupportedSpecVersions, validate } from "ctrf";
import { boundedText } from "../../runners/bounded-text.ts";
import { secondsToDuration } from "../junit/numbers.ts";
import {
  attachmentOf,
  boundedFailure,
  boundedIdentity,
  boundedProperties,
  boundedTags,
  MAX,
} from "../limits.ts";
import type { FormatReader, ParseReportOptions, ReportLimits } from "../report.ts";
import {
  type AttemptInit,
  type IdentityInit,
  type ReportSink,
  readableText,
  type TestResultInit,
} from "../report-sink.ts";
import { createJsonReader, listOf, numberOf, objectOf, textOf } from "../text/json.ts";
import { createPathRule } from "../text/paths.ts";
import { fromCtrfStatus } from "./status.ts";

type Json = Readonly<Record<string, unknown>>;

/** How many tests are checked against the schema at once: what is wrong with them is held in memory. */
const CHECKED_AT_ONCE = 500;
/** A test stands in the report, in its results, in their list. */
const PART_DEPTH = 3;
const MAX_LINE = 2 ** 32 - 1;
/** Beyond these a number is no time. */
const MAX_MS = 1e12;
const MAX_EPOCH_MS = 8.64e15;

/** Reads the Common Test Report Format. What its schema says against is told; what can be read all the same is. */
export function createCtrfReader(
  options: ParseReportOptions,
  sink: ReportSink,
  limits: ReportLimits,
): FormatReader {
  const relative = createPathRule(options.root);

  function readDocument(document: unknown): void {
    const report = objectOf(document);
    const results = objectOf(report?.["results"]);
    if (report === undefined || results === undefined || !Array.isArray(results["tests"])) {
      if (!sink.broken) {
        sink.error("this is not a CTRF report: it has no list `results.tests`", "line 1");
      }
      return;
    }
    const tests = listOf(results["tests"]);
    // Of a broken report it is said already that things are missing.
    const isWhole = !sink.broken;
    if (isFuture(report)) {
      sink.warning(
        `future version ${textOf(report["specVersion"]).slice(0, 100)} of CTRF, known is up to ` +
          `${getSupportedSpecVersions().at(-1)}; what is known of it was read`,
        "specVersion",
      );
    } else if (isWhole) {
      check(report, results, tests);
    }
    const framework = options.framework || textOf(objectOf(results["tool"])?.["name"]) || "ctrf";
    for (const [index, test] of tests.entries()) {
      readTest(test, index, framework);
    }
    if (isWhole) {
      checkTotals(objectOf(results["summary"]), tests);
    }
  }

  function readTest(value: unknown, index: number, framework: string): void {
    const test = objectOf(value);
    const place = placeOf(value, index);
    if (test === undefined || textOf(test["name"]) === "") {
      sink.error("a test without a name was left out", place);
      return;
    }
    const status = fromCtrfStatus(textOf(test["status"]), textOf(test["rawStatus"]));
    if (status === undefined) {
      sink.error(
        `a test of unknown status was left out; there are passed, failed, skipped, pending, other`,
        place,
      );
      return;
    }
    sink.result(resultOf(test, status, identityOf(test, framework)));
  }

  function identityOf(test: Json, framework: string): IdentityInit {
    const marked = objectOf(objectOf(test["extra"])?.["toolplane"])?.["test"];
    if (marked !== undefined) {
      try {
        // What came out of JSON is JSON.
        const json = marked as JsonValue;
        const {
          $typeName: _,
          project: __,
          ...own
        } = fromJson(TestIdentitySchema, json, { ignoreUnknownFields: true });
        return boundedIdentity(own);
      } catch {
        // Not ours: the report's own fields tell.
      }
    }
    const file = textOf(test["filePath"]);
    const suite =
      typeof test["suite"] === "string" ? test["suite"].split(" > ") : listOf(test["suite"]).map(textOf);
    const parameters = objectOf(test["parameters"]);
    return boundedIdentity({
      framework,
      file: file === "" ? "" : relative(file),
      suitePath: suite.filter((name, index) => name !== "" && !(index === 0 && name === file)),
      name: textOf(test["name"]),
      ...(parameters !== undefined && { parameters: JSON.stringify(parameters) }),
      variant: [textOf(test["browser"]), textOf(test["device"])].filter((part) => part !== "").join(" "),
    });
  }

  /** Tells what the schema says against, a few tests at a time. */
  function check(report: Json, results: Json, tests: readonly unknown[]): void {
    for (let from = 0; from === 0 || from < tests.length; from += CHECKED_AT_ONCE) {
      const some = tests.slice(from, from + CHECKED_AT_ONCE).map(shortened);
      const checked = validate({ ...report, results: { ...results, tests: some } });
      for (const { path, message } of checked.errors.slice(0, 100)) {
        const match = /^\/results\/tests\/(\d+)(.*)$/s.exec(path);
        const index = match === null ? undefined : from + Number(match[1]);
        if (index !== undefined) {
          sink.warning(
            `not as CTRF has it: ${match?.[2] || "the test"} ${message}`,
            placeOf(tests[index], index),
          );
        } else if (from === 0) {
          sink.warning(`not as CTRF has it: ${message}`, path);
        }
      }
    }
  }

  function checkTotals(summary: Json | undefined, tests: readonly unknown[]): void {
    const total = numberOf(summary?.["tests"]);
    if (total !== undefined && total !== tests.length) {
      sink.warning(
        `the summary says that there are ${total} tests, and there are ${tests.length}`,
        "results.summary",
      );
    }
    const failed = tests.filter((test) => objectOf(test)?.["status"] === "failed").length;
    const said = numberOf(summary?.["failed"]);
    if (said !== undefined && said !== failed) {
      sink.warning(`the summary says that ${said} tests failed, and ${failed} did`, "results.summary");
    }
  }

  return createJsonReader(sink, limits, PART_DEPTH, readDocument);
}

function isFuture(report: Json): boolean {
  const parts = /^(\d+)\.(\d+)\.(\d+)/.exec(textOf(report["specVersion"]))?.slice(1).map(Number);
  const known = (getSupportedSpecVersions().at(-1) ?? "0.0.0").split(".").map(Number);
  const differing = parts?.findIndex((part, index) => part !== known[index]) ?? -1;
  return parts !== undefined && differing !== -1 && (parts[differing] ?? 0) > (known[differing] ?? 0);
}

function placeOf(test: unknown, index: number): string {
  return `test ${index + 1} "${textOf(objectOf(test)?.["name"]).slice(0, 200)}"`;
}

/** Without the lists in which there could be very much to say against. */
function shortened(value: unknown): unknown {
  const test = objectOf(value);
  if (test === undefined) {
    return value;
  }
  const { steps: _, insights: __, ...rest } = test;
  return Object.fromEntries(
    Object.entries(rest).map(([name, part]) => [
      name,
      Array.isArray(part) ? part.slice(0, MAX.attempts) : part,
    ]),
  );
}

function resultOf(test: Json, status: TestStatus, identity: IdentityInit): TestResultInit {
  const last: AttemptInit = { ...attemptOf(test, status), ...exactDuration(test) };
  const earlier = listOf(test["retryAttempts"]).flatMap((value) => earlierAttempt(objectOf(value)));
  const known = earlier.length > 0 ? earlier : unknownAttempts(test, status);
  const attempts = [...known, last].slice(-MAX.attempts);
  const tells = attempts.length > 1 || last.failures?.length || last.stdout || last.stderr;
  const line = numberOf(test["line"]) ?? 0;
  const failed = (last.failures?.length ?? 0) > 0;
  return {
    test: identity,
    status,
    ...(last.duration !== undefined && { duration: last.duration }),
    ...(last.startTime !== undefined && { startTime: last.startTime }),
    attempts: tells ? attempts : [],
    tags: boundedTags(listOf(test["tags"]).map(textOf)),
    message: failed ? "" : boundedText(readableText(textOf(test["message"]))),
    line: line > 0 && line <= MAX_LINE ? Math.floor(line) : 0,
    attachments: listOf(test["attachments"])
      .flatMap((value) => {
        const attachment = objectOf(value);
        const { path, name, contentType } = attachment ?? {};
        return attachmentOf(textOf(path), textOf(name), textOf(contentType)) ?? [];
      })
      .slice(0, MAX.attachments),
    properties: propertiesOf(test),
  };
}

function attemptOf(from: Json, status: TestStatus): AttemptInit {
  const duration = numberOf(from["duration"]);
  const start = numberOf(from["start"]);
  const message = textOf(from["message"]);
  const stack = textOf(from["trace"]);
  const fails =
    status === TestStatus.FAILED || status === TestStatus.ERROR || status === TestStatus.UNEXPECTED_PASS;
  return {
    status,
    ...(duration !== undefined && duration >= 0 && duration < MAX_MS
      ? { duration: secondsToDuration(duration / 1000) }
      : {}),
    ...(start !== undefined && start > 0 && start < MAX_EPOCH_MS
      ? { startTime: timestampFromMs(start < 1e11 ? start * 1000 : start) }
      : {}),
    failures: fails && (message !== "" || stack !== "") ? [boundedFailure({ message, stack })] : [],
    stdout: boundedText(readableText(listOf(from["stdout"]).map(textOf).join("\n"))),
    stderr: boundedText(readableText(listOf(from["stderr"]).map(textOf).join("\n"))),
  };
}

function earlierAttempt(attempt: Json | undefined): AttemptInit[] {
  const status = attempt && fromCtrfStatus(textOf(attempt["status"]), "");
  return attempt === undefined || status === undefined ? [] : [attemptOf(attempt, status)];
}

/** A report may say how often a test was retried without a word about each time. */
function unknownAttempts(test: Json, status: TestStatus): AttemptInit[] {
  const retries = Math.max(numberOf(test["retries"]) ?? 0, test["flaky"] === true ? 1 : 0);
  const failed = status === TestStatus.PASSED || status === TestStatus.FAILED;
  return failed && retries > 0
    ? Array.from({ length: Math.min(Math.floor(retries), MAX.attempts - 1) }, () => ({
        status: TestStatus.FAILED,
      }))
    : [];
}

/** CTRF has whole milliseconds; our own reports add the rest. */
function exactDuration(test: Json): Pick<AttemptInit, "duration"> {
  const nanos = textOf(objectOf(objectOf(test["extra"])?.["toolplane"])?.["durationNanos"]);
  if (!/^\d{1,21}$/.test(nanos)) {
    return {};
  }
  const all = BigInt(nanos);
  return { duration: { seconds: all / 1_000_000_000n, nanos: Number(all % 1_000_000_000n) } };
}

function propertiesOf(test: Json): Record<string, string> {
  const labels = Object.entries(objectOf(test["labels"]) ?? {}).map(
    ([name, value]) => [name, Array.isArray(value) ? value.map(String).join(", ") : String(value)] as const,
  );
  return boundedProperties(labels);
}
