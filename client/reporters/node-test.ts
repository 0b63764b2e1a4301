import { resolve } from "node:path";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { BoundedText } from "../runners/bounded-text.ts";
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
import { failureOf, type TestFailureInit, textOf } from "./failure.ts";
import type { NodeTestData, NodeTestError, NodeTestEvent } from "./node-test-event.ts";
import { fileOf, type NodeTest, NodeTestTree } from "./node-test-tree.ts";
import { createFileNames } from "./paths.ts";
import { createSink } from "./sink.ts";

/**
 * A reporter of Node's test runner that tells Toolplane of each test as it happens. Use it beside others:
 * `node --test --test-reporter=spec --test-reporter-destination=stdout
 * --test-reporter=@toolplane/client/reporters/node-test --test-reporter-destination=stdout`. It writes nothing to its
 * destination, and sends to the server that TOOLPLANE_URL names.
 *
 * From Node 22 on tests are told of when they are found and started; before, Node does not tell tests from suites until
 * they end, so that a crash is attributed to the file alone. What tests write is not told: Node knows only the file.
 */
export default async function* toolplaneReporter(
  source: AsyncIterable<NodeTestEvent>,
): AsyncGenerator<never, void> {
  const sink = createSink({ framework: "node-test", frameworkVersion: `node ${process.version}` });
  const run = new NodeTestRun((event) => sink.write(event));
  for await (const event of source) {
    run.on(event);
  }
  run.end();
  await sink.end();
}

/** Makes events of what Node tells: some of it at once, and some of it again in the order of definition. */
class NodeTestRun {
  readonly #write: (event: TestEventInit) => void;
  readonly #tree = new NodeTestTree();
  readonly #fileName = createFileNames(process.cwd());
  readonly #occurrenceOf = createOccurrences();
  /** Files whose processes run, with what failed in them besides tests. */
  readonly #files = new Map<string, TestFailureInit[]>();
  /** What they wrote to standard error: of a file that fails as a whole, it is all that says why. */
  readonly #complaints = new Map<string, BoundedText>();
  /** Tests that were found and not told of: files define many at once. */
  #found: TestIdentityInit[] = [];

  constructor(write: (event: TestEventInit) => void) {
    this.#write = write;
  }

  on({ type, data }: NodeTestEvent): void {
    if (type !== "test:enqueue") {
      this.#flushFound();
    }
    if (type === "test:diagnostic") {
      if (data.level === "error") {
        this.#write(problemOf(textOf(data.message)));
      }
    } else if (type === "test:stderr") {
      const file = resolve(fileOf(data));
      const complaints = this.#complaints.get(file) ?? new BoundedText();
      complaints.append(textOf(data.message));
      this.#complaints.set(file, complaints);
    } else if (data !== undefined && isFile(data)) {
      this.#onFile(type, data);
    } else {
      this.#onTest(type, data);
    }
  }

  #onFile(type: string, data: NodeTestData): void {
    switch (type) {
      case "test:dequeue":
        this.#fileStarted(data);
        break;
      case "test:complete":
        this.#fileEnded(data);
        break;
      case "test:pass":
      case "test:fail":
        this.#fileIsTest(data, type === "test:pass");
        break;
    }
  }

  #onTest(type: string, data: NodeTestData): void {
    switch (type) {
      case "test:enqueue":
        this.#enqueued(data);
        break;
      case "test:dequeue":
        this.#started(data);
        break;
      case "test:complete":
        this.#completed(data);
        break;
      case "test:start":
        this.#tree.inOrder(data);
        break;
      case "test:pass":
      case "test:fail":
        this.#endedInOrder(data, type === "test:pass");
        break;
    }
  }

  end(): void {
    this.#flushFound();
  }

  #flushFound(): void {
    for (const event of testsFound(this.#found)) {
      this.#write(event);
    }
    this.#found = [];
  }

  #enqueued(data: NodeTestData): void {
    const test = this.#tree.add(data);
    if (test.placed && test.isSuite === false) {
      this.#found.push(this.#identify(test));
    }
  }

  #started(data: NodeTestData): void {
    const test = this.#tree.started(data);
    if (test?.placed && test.isSuite === false && !test.announced) {
      test.announced = true;
      this.#write(eventOf({ case: "testStarted", value: { test: this.#identify(test), attempt: 1 } }));
    }
  }

  #completed(data: NodeTestData): void {
    const test = this.#tree.completed(data);
    if (test?.placed && !test.ended) {
      this.#end(test, data, data.details?.passed ?? data.details?.error === undefined);
    }
  }

  #endedInOrder(data: NodeTestData, passed: boolean): void {
    const test = this.#tree.endedInOrder(data);
    if (!test.ended) {
      this.#end(test, data, passed);
    }
  }

  #end(test: NodeTest, data: NodeTestData, passed: boolean): void {
    test.ended = true;
    test.isSuite = data.details?.type === "suite" || (test.isSuite ?? false);
    if (test.isSuite) {
      this.#suiteEnded(test, data, passed);
      return;
    }
    const value = resultOf(this.#identify(test), data, passed, test.startTime);
    this.#write(eventOf({ case: "testEnded", value }));
  }

  /** Suites are no tests; one that fails for itself, in a hook, fails its file. */
  #suiteEnded(test: NodeTest, { details, todo }: NodeTestData, passed: boolean): void {
    if (passed || todo || !details?.error || details.error.failureType === "subtestsFailed") {
      return;
    }
    const failure = failureOfNode(details.error);
    const failures = this.#files.get(test.file);
    if (failures) {
      failures.push({ ...failure, message: textOf(`${test.name}: ${failure.message ?? ""}`) });
    } else {
      this.#write(problemOf(`${test.name}: ${failure.message ?? ""}`, this.#fileName(test.file)));
    }
  }

  #fileStarted(data: NodeTestData): void {
    const file = fileOf(data);
    this.#files.set(file, []);
    this.#write(eventOf({ case: "fileStarted", value: { file: this.#fileName(file) } }));
  }

  #fileEnded(data: NodeTestData): void {
    const file = fileOf(data);
    const failures = this.#files.get(file) ?? [];
    this.#files.delete(file);
    const error = data.details?.error;
    if (error && error.failureType !== "subtestsFailed") {
      failures.push(this.#failureOfFile(file, error));
    }
    this.#endUnended(file);
    const value = {
      file: this.#fileName(file),
      ...durationOf(data.details?.duration_ms),
      failures: failures.slice(0, 100),
    };
    this.#write(eventOf({ case: "fileEnded", value }));
  }

  /** The file's process is gone: what it did not tell it will not tell. */
  #endUnended(file: string): void {
    for (const test of this.#tree.testsOf(file)) {
      if (test.isSuite === false && test.placed && !test.completed && !test.ended) {
        test.ended = true;
        const value = {
          test: this.#identify(test),
          status: test.startTime === undefined ? TestStatus.NOT_RUN : TestStatus.INTERRUPTED,
          ...startTimeOf(test.startTime),
          message: "the process of its file ended before this test did",
        };
        this.#write(eventOf({ case: "testEnded", value }));
      }
    }
  }

  /** Node counts a file as a test where it has none, and where it fails besides its tests. */
  #fileIsTest(data: NodeTestData, passed: boolean): void {
    const test = this.#identity(fileOf(data), [], this.#fileName(fileOf(data)));
    const { error } = data.details ?? {};
    if (passed || !error) {
      this.#write(eventOf({ case: "testEnded", value: resultOf(test, data, passed, undefined) }));
      return;
    }
    const status = TestStatus.ERROR;
    const duration = durationOf(data.details?.duration_ms);
    const attempts = [{ status, ...duration, failures: [this.#failureOfFile(fileOf(data), error)] }];
    this.#write(eventOf({ case: "testEnded", value: { test, status, ...duration, attempts } }));
  }

  #failureOfFile(file: string, error: NodeTestError): TestFailureInit {
    const failure = failureOfNode(error);
    return { ...failure, stack: failure.stack || (this.#complaints.get(file)?.toString() ?? "") };
  }

  #identify(test: NodeTest): TestIdentityInit {
    if (!test.identity) {
      const path: string[] = [];
      for (let above = test.parent; above; above = above.parent) {
        path.unshift(above.name);
      }
      test.identity = this.#identity(test.file, path, test.name);
    }
    return test.identity;
  }

  #identity(file: string, suitePath: readonly string[], name: string): TestIdentityInit {
    const unnumbered = identityOf({ framework: "node-test", file: this.#fileName(file), suitePath, name });
    return { ...unnumbered, occurrence: this.#occurrenceOf(unnumbered) };
  }
}

/** The runner's own process tells of each file as of a test, whose name is the file's path. */
function isFile(data: NodeTestData): boolean {
  return (
    data.entryFile === undefined &&
    data.nesting === 0 &&
    data.line === 1 &&
    data.column === 1 &&
    data.file !== undefined &&
    resolve(data.name) === data.file
  );
}

function resultOf(
  test: TestIdentityInit,
  data: NodeTestData,
  passed: boolean,
  startTime: number | undefined,
): TestResultInit {
  const status = statusOf(data, passed);
  const duration = durationOf(data.details?.duration_ms);
  const error = data.details?.error;
  const reason = [data.skip, data.todo].find((text) => typeof text === "string");
  return {
    test,
    status,
    ...duration,
    ...startTimeOf(startTime),
    attempts: error && !passed ? [{ status, ...duration, failures: [failureOfNode(error)] }] : [],
    tags: (data.tags ?? []).filter((tag) => tag !== "" && tag.length <= 128).slice(0, 64),
    message: textOf(reason),
    // A test that a helper defines has its place in the helper's file.
    line: data.entryFile === undefined || data.entryFile === data.file ? (data.line ?? 0) : 0,
  };
}

function statusOf({ skip, todo, expectFailure, details }: NodeTestData, passed: boolean): TestStatus {
  // Both are told with an empty reason as well as with none.
  if (skip !== undefined && skip !== false) {
    return TestStatus.SKIPPED;
  }
  if (todo !== undefined && todo !== false) {
    return TestStatus.TODO;
  }
  if (expectFailure !== undefined && expectFailure !== false) {
    return passed ? TestStatus.EXPECTED_FAILURE : TestStatus.UNEXPECTED_PASS;
  }
  if (passed) {
    return TestStatus.PASSED;
  }
  switch (details?.error?.failureType) {
    case "hookFailed":
    case "cancelledByParent":
    case "parentAlreadyFinished":
      return TestStatus.ERROR;
    case "testAborted":
      return TestStatus.INTERRUPTED;
    default:
      return TestStatus.FAILED;
  }
}

/** What the test threw says more than that it failed. */
function failureOfNode(error: NodeTestError): TestFailureInit {
  const { cause, signal, exitCode, failureType } = error;
  if (cause !== undefined && cause !== null && failureType !== "subtestsFailed") {
    const failure = failureOf(cause);
    const how = signal ? ` (${signal})` : exitCode ? ` (exit code ${exitCode})` : "";
    return { ...failure, message: textOf(`${failure.message ?? ""}${how}`) };
  }
  return failureOf(error);
}
