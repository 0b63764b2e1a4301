import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { createOccurrences, type TestIdentityInit } from "../runners/occurrences.ts";
import type { TestEventInit } from "../runners/runner.ts";
import {
  durationOf,
  eventOf,
  identityOf,
  problemOf,
  startTimeOf,
  type TestResultInit,
  testsFound,
} from "./events.ts";
import { describeValue, failureOf, type TestFailureInit, textOf } from "./failure.ts";
import type {
  JestCaseResult,
  JestCaseStart,
  JestFileResult,
  JestGlobalConfig,
  JestRunResult,
  JestTest,
} from "./jest-api.ts";
import { createFileNames } from "./paths.ts";
import { createSink, type ReporterOptions, type Sink } from "./sink.ts";

/** A test of a file that runs. */
interface KnownTest {
  readonly identity: TestIdentityInit;
  startTime: number | undefined;
  /** What came of it, attempt by attempt. */
  readonly attempts: NonNullable<TestResultInit["attempts"]>[number][];
  /** What was told of it last. */
  status: TestStatus | undefined;
}

/** A file that runs. */
interface OpenFile {
  readonly name: string;
  readonly variant: string;
  readonly occurrenceOf: (test: TestIdentityInit) => number;
  /** By suites and name: several tests may have the same. */
  readonly tests: Map<string, KnownTest[]>;
}

/**
 * A reporter of Jest that tells Toolplane of each test as it happens. Use it beside others:
 * `reporters: ["default", "@toolplane/client/reporters/jest"]`. It sends to the server that TOOLPLANE_URL names.
 *
 * Jest tells of tests when they start, not when they are found, and of skipped ones when their file ends. It tries failed
 * tests again after others, so a test may be told of once for every attempt: its last result counts.
 */
class ToolplaneReporter {
  readonly #options: ReporterOptions;
  readonly #fileName: (path: string) => string;
  readonly #files = new Map<string, OpenFile>();
  #sink: Sink | undefined;

  constructor(globalConfig: JestGlobalConfig, options: ReporterOptions = {}) {
    this.#options = options;
    this.#fileName = createFileNames(globalConfig.rootDir);
  }

  onTestFileStart(test: JestTest): void {
    const { name } = this.#open(test);
    this.#write(eventOf({ case: "fileStarted", value: { file: name } }));
  }

  #open(test: JestTest): OpenFile {
    const { displayName } = test.context.config;
    const file = {
      name: this.#fileName(test.path),
      variant: (typeof displayName === "object" ? displayName.name : displayName) ?? "",
      occurrenceOf: createOccurrences(),
      tests: new Map(),
    };
    this.#files.set(keyOf(test), file);
    return file;
  }

  onTestCaseStart(test: JestTest, start: JestCaseStart): void {
    const file = this.#files.get(keyOf(test));
    // A test of this name that failed may be tried again, or another one of its name begins: the result will tell.
    if (!file || testsLike(file, start).some(hasFailed)) {
      return;
    }
    const known = this.#add(file, start);
    known.startTime = Date.now();
    this.#write(
      ...testsFound([known.identity]),
      eventOf({ case: "testStarted", value: { test: known.identity, attempt: 1 } }),
    );
  }

  #add(file: OpenFile, start: JestCaseStart): KnownTest {
    const unnumbered = identityOf({
      framework: "jest",
      file: file.name,
      suitePath: start.ancestorTitles,
      name: start.title,
      variant: file.variant,
    });
    const identity = { ...unnumbered, occurrence: file.occurrenceOf(unnumbered) };
    const known: KnownTest = { identity, startTime: undefined, attempts: [], status: undefined };
    testsLike(file, start).push(known);
    return known;
  }

  onTestCaseResult(test: JestTest, result: JestCaseResult): void {
    const file = this.#files.get(keyOf(test));
    if (file) {
      const similar = testsLike(file, result);
      const again = (result.invocations ?? 1) - 1;
      const known =
        similar.find((one) => again > 0 && one.attempts.length === again && hasFailed(one)) ??
        similar.find(({ status }) => status === undefined) ??
        this.#add(file, result);
      const before = known.attempts.at(-1);
      if (before) {
        const value = { test: known.identity, attempt: known.attempts.length, result: before };
        this.#write(eventOf({ case: "attemptEnded", value }));
      }
      this.#end(known, result);
    }
  }

  #end(known: KnownTest, result: JestCaseResult): void {
    const status = statusOf(result);
    known.status = status;
    const attempt = {
      status,
      ...startTimeOf(result.startedAt ?? known.startTime),
      ...durationOf(result.duration),
      failures: failuresOf(result),
    };
    known.attempts.push(attempt);
    const { length } = known.attempts;
    const value = {
      test: known.identity,
      status,
      ...startTimeOf(result.startedAt ?? known.startTime),
      ...durationOf(result.duration),
      attempts: length > 1 ? known.attempts.slice(-100) : attempt.failures.length > 0 ? [attempt] : [],
      line: result.location?.line ?? 0,
    };
    this.#write(eventOf({ case: "testEnded", value }));
  }

  onTestFileResult(test: JestTest, result: JestFileResult): void {
    const file = this.#files.get(keyOf(test)) ?? this.#open(test);
    this.#files.delete(keyOf(test));
    this.#endTests(file, result.testResults);
    const { start, end } = result.perfStats;
    const error = result.testExecError;
    const value = {
      file: file.name,
      ...durationOf(end - start),
      failures: error ? [failureOf(error)] : [],
    };
    this.#write(eventOf({ case: "fileEnded", value }));
  }

  /** Adds what was not told while the file ran. */
  #endTests(file: OpenFile, results: readonly JestCaseResult[]): void {
    for (const result of results) {
      const similar = testsLike(file, result);
      const status = statusOf(result);
      // Tests of one name are told apart by how they ended; those that are alike in that are alike.
      const index = similar.findIndex((known) => known.status === status);
      const [known] = index === -1 ? [] : similar.splice(index, 1);
      if (!known) {
        const unended = similar.findIndex((one) => one.status === undefined);
        const [open] = unended === -1 ? [] : similar.splice(unended, 1);
        this.#endLate(file, open, result);
      }
    }
    for (const known of [...file.tests.values()].flat()) {
      if (known.status === undefined) {
        const value = {
          test: known.identity,
          status: TestStatus.INTERRUPTED,
          ...startTimeOf(known.startTime),
          message: "its file ended before this test did",
        };
        this.#write(eventOf({ case: "testEnded", value }));
      }
    }
  }

  #endLate(file: OpenFile, open: KnownTest | undefined, result: JestCaseResult): void {
    const known = open ?? this.#add(file, result);
    if (!open) {
      testsLike(file, result).pop();
    }
    this.#end(known, result);
  }

  async onRunComplete(_contexts: unknown, results: JestRunResult): Promise<void> {
    for (const file of this.#files.values()) {
      this.#endTests(file, []);
      const failures = [{ message: "the run ended before this file did" }];
      this.#write(eventOf({ case: "fileEnded", value: { file: file.name, failures } }));
    }
    this.#files.clear();
    if (results.runExecError) {
      const { message = "", stack } = failureOf(results.runExecError);
      this.#write(problemOf(stack || message));
    }
    const sink = this.#sink;
    this.#sink = undefined;
    await sink?.end();
  }

  #write(...events: readonly TestEventInit[]): void {
    this.#sink ??= createSink({ ...this.#options, framework: "jest" });
    for (const event of events) {
      this.#sink.write(event);
    }
  }
}

// Versions of Node that let modules be required would hand Jest all exports in place of the class.
export { ToolplaneReporter as default, ToolplaneReporter as "module.exports" };

/** Only such tests are tried again. */
function hasFailed({ status }: KnownTest): boolean {
  return status === TestStatus.FAILED || status === TestStatus.UNEXPECTED_PASS;
}

function keyOf(test: JestTest): string {
  const { displayName } = test.context.config;
  return JSON.stringify([test.path, displayName ?? null]);
}

function testsLike(file: OpenFile, { ancestorTitles, title }: JestCaseStart): KnownTest[] {
  const key = JSON.stringify([ancestorTitles, title]);
  const tests = file.tests.get(key) ?? [];
  file.tests.set(key, tests);
  return tests;
}

function statusOf({ status, failing, failureMessages }: JestCaseResult): TestStatus {
  switch (status) {
    case "passed":
    case "focused":
      return failing ? TestStatus.EXPECTED_FAILURE : TestStatus.PASSED;
    case "failed":
      return failing && failureMessages?.some((message) => message.includes("Failing test passed"))
        ? TestStatus.UNEXPECTED_PASS
        : TestStatus.FAILED;
    case "todo":
      return TestStatus.TODO;
    case "skipped":
    case "pending":
    case "disabled":
      return TestStatus.SKIPPED;
  }
}

/** The details say what was expected, the messages where it happened. */
function failuresOf({ failureDetails = [], failureMessages = [] }: JestCaseResult): TestFailureInit[] {
  return failureMessages.slice(0, 100).map((message, index) => {
    const text = textOf(message);
    const detail = failureDetails[index];
    if (typeof detail !== "object" || detail === null) {
      return { message: text.split("\n    at ", 1)[0] ?? text, stack: text };
    }
    const failure = failureOf(detail);
    const matched = "matcherResult" in detail ? detail.matcherResult : undefined;
    const values =
      typeof matched === "object" && matched !== null && "expected" in matched && "actual" in matched
        ? { expected: describeValue(matched.expected), actual: describeValue(matched.actual) }
        : {};
    return {
      ...failure,
      message: "message" in detail ? (failure.message ?? "") : (text.split("\n    at ", 1)[0] ?? text),
      stack: text,
      ...values,
    };
  });
}
