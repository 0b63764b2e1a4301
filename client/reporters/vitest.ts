import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { Reporter, TestAttempt, TestCase, TestModule, TestSuite, Vitest } from "vitest/node";
import { createOccurrences, type TestIdentityInit } from "../runners/occurrences.ts";
import type { TestEventInit } from "../runners/runner.ts";
import {
  durationOf,
  eventOf,
  identityOf,
  outputOf,
  problemOf,
  startTimeOf,
  type TestResultInit,
  testsFound,
} from "./events.ts";
import { failuresOf, textOf } from "./failure.ts";
import { createFileNames } from "./paths.ts";
import { createSink, type ReporterOptions, type Sink } from "./sink.ts";

/** What is known of a test of this run. */
interface KnownTest {
  readonly identity: TestIdentityInit;
  /** As it was defined: Vitest marks tests that a cancelled run leaves out as skipped, too. */
  readonly leftOut: "skip" | "todo" | undefined;
  started: boolean;
  ended: boolean;
  /** How many attempts were told to have ended. */
  attempts: number;
}

/**
 * A reporter of Vitest that tells Toolplane of each test as it happens. Use it beside others:
 * `reporters: ["default", "@toolplane/client/reporters/vitest"]`. It sends to the server that TOOLPLANE_URL names.
 */
export default class ToolplaneReporter implements Reporter {
  readonly #options: ReporterOptions;
  readonly #tests = new Map<string, KnownTest>();
  /** Files that began and did not end. */
  readonly #openFiles = new Set<string>();
  #version = "";
  #fileName: (path: string) => string = (path) => path;
  #sink: Sink | undefined;

  constructor(options: ReporterOptions = {}) {
    this.#options = options;
  }

  onInit(vitest: Vitest): void {
    this.#version = vitest.version;
    this.#fileName = createFileNames(vitest.config.root);
  }

  onTestRunStart(): void {
    this.#tests.clear();
    this.#openFiles.clear();
  }

  onTestModuleQueued(module: TestModule): void {
    this.#openFiles.add(module.id);
    this.#write(eventOf({ case: "fileStarted", value: { file: this.#fileName(module.moduleId) } }));
  }

  onTestModuleCollected(module: TestModule): void {
    this.#write(...testsFound(this.#collect(module)));
  }

  /** Remembers the tests of a module in the order of their definition, and returns their identities. */
  #collect(module: TestModule): TestIdentityInit[] {
    const occurrenceOf = createOccurrences();
    const file = this.#fileName(module.moduleId);
    const variant = variantOf(module);
    const found: TestIdentityInit[] = [];
    for (const test of module.children.allTests()) {
      const unnumbered = identityOf({
        framework: "vitest",
        file,
        suitePath: suitePathOf(test),
        name: test.name,
        variant,
      });
      const identity = { ...unnumbered, occurrence: occurrenceOf(unnumbered) };
      const { mode } = test.options;
      const leftOut = mode === "skip" || mode === "todo" ? mode : undefined;
      const known = { identity, leftOut, started: false, ended: false, attempts: 0 };
      this.#tests.set(test.id, known);
      found.push(identity);
    }
    return found;
  }

  onTestCaseReady(test: TestCase): void {
    const known = this.#tests.get(test.id);
    if (known && !known.leftOut && !known.started) {
      known.started = true;
      this.#write(eventOf({ case: "testStarted", value: { test: known.identity, attempt: 1 } }));
    }
  }

  /** Vitest tells reporters of attempts that were not the last in no other way while the test runs. */
  onTaskUpdate(packs: readonly TaskPack[], events: readonly TaskEvent[]): void {
    for (const [id, event] of events) {
      const known = this.#tests.get(id);
      const task = packs.findLast(([taskId]) => taskId === id)?.[1];
      if (event !== "test-retried" || !known || known.ended || !task?.attempts) {
        continue;
      }
      const attempts = task.attempts.map(
        (attempt) => ({ ...attempt, state: attempt.state === "pass" ? "passed" : "failed" }) as TestAttempt,
      );
      // The last attempt that the test is allowed is told by its result.
      const { length } = attempts;
      if (length > known.attempts && length <= (task.retryCount ?? 0)) {
        this.#endAttempts(known, attempts, length);
        this.#write(eventOf({ case: "testStarted", value: { test: known.identity, attempt: length + 1 } }));
      }
    }
  }

  /** Tells of attempts that were followed by another, as far as that was not done before. */
  #endAttempts(known: KnownTest, attempts: readonly TestAttempt[], count: number): void {
    for (; known.attempts < count; known.attempts++) {
      const attempt = attempts[known.attempts];
      if (attempt) {
        const value = {
          test: known.identity,
          attempt: known.attempts + 1,
          result: attemptOf(attempt, attempt.state === "passed" ? TestStatus.PASSED : TestStatus.FAILED),
        };
        this.#write(eventOf({ case: "attemptEnded", value }));
      }
    }
  }

  onTestCaseResult(test: TestCase): void {
    const known = this.#tests.get(test.id);
    if (!known || known.ended || test.result().state === "pending") {
      return;
    }
    known.ended = true;
    // Versions before 5 do not tell attempts apart.
    const attempts: readonly TestAttempt[] = test.attempts?.() ?? [];
    this.#endAttempts(known, attempts, attempts.length - 1);
    this.#write(eventOf({ case: "testEnded", value: resultOf(test, known, attempts) }));
  }

  onUserConsoleLog(log: UserConsoleLog): void {
    const known = log.taskId === undefined ? undefined : this.#tests.get(log.taskId);
    if (known) {
      this.#write(...outputOf(log.content, log.type === "stderr", known.identity));
    }
  }

  onTestModuleEnd(module: TestModule): void {
    this.#endModule(
      module,
      [module, ...module.children.allSuites()].flatMap((suite) => suite.errors()),
    );
  }

  #endModule(module: TestModule, errors: readonly unknown[]): void {
    this.#endTests(module);
    this.#openFiles.delete(module.id);
    const value = {
      file: this.#fileName(module.moduleId),
      ...durationOf(module.diagnostic().duration),
      failures: failuresOf(errors),
    };
    this.#write(eventOf({ case: "fileEnded", value }));
  }

  /** Tests that Vitest does not report one by one: those of type checks, and those that were never begun. */
  #endTests(module: TestModule): void {
    for (const test of module.children.allTests()) {
      const known = this.#tests.get(test.id);
      if (!known || known.ended) {
        continue;
      }
      const { state } = test.result();
      if (known.leftOut || (state !== "skipped" && state !== "pending")) {
        this.onTestCaseResult(test);
        continue;
      }
      known.ended = true;
      const value = {
        test: known.identity,
        status: known.started ? TestStatus.INTERRUPTED : TestStatus.NOT_RUN,
        message: "the run ended before this test did",
      };
      this.#write(eventOf({ case: "testEnded", value }));
    }
  }

  async onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): Promise<void> {
    for (const module of modules) {
      if (this.#openFiles.has(module.id)) {
        // Its process died, or the run was cancelled.
        this.#endModule(module, [new FileNotEnded()]);
      }
    }
    for (const error of errors) {
      const [failure] = failuresOf([error]);
      this.#write(problemOf(failure?.stack || failure?.message || "", this.#placeOf(error)));
    }
    const sink = this.#sink;
    this.#sink = undefined;
    await sink?.end();
  }

  /** The file of an error outside of tests, as far as Vitest knows it. */
  #placeOf(error: unknown): string {
    const path =
      typeof error === "object" && error !== null && "VITEST_TEST_PATH" in error
        ? error.VITEST_TEST_PATH
        : undefined;
    return typeof path === "string" ? this.#fileName(path) : "";
  }

  #write(...events: readonly TestEventInit[]): void {
    this.#sink ??= createSink({
      ...this.#options,
      framework: "vitest",
      frameworkVersion: `vitest ${this.#version}`,
    });
    for (const event of events) {
      this.#sink.write(event);
    }
  }
}

class FileNotEnded extends Error {
  override readonly name = "FileNotEnded";
  override readonly message = "the run ended before this file did";
  override readonly stack = "";
}

/** What Vitest's worker tells of a task; its types are not exported. */
type TaskPack = readonly [
  id: string,
  result:
    | {
        readonly attempts?: readonly (Omit<TestAttempt, "state"> & { readonly state: string })[];
        readonly retryCount?: number;
      }
    | undefined,
  ...rest: unknown[],
];
type UserConsoleLog = Parameters<NonNullable<Reporter["onUserConsoleLog"]>>[0];
type TaskEvent = readonly [id: string, event: string, ...rest: unknown[]];

/** The same file may run in several projects, and once more to check its types. */
function variantOf(module: TestModule): string {
  const isTypecheck = module.toTestSpecification?.().pool === "typescript";
  return [module.project.name, isTypecheck ? "typecheck" : ""].filter(Boolean).join(" ");
}

function suitePathOf(test: TestCase): string[] {
  const path: string[] = [];
  let parent: TestSuite | TestModule = test.parent;
  while (parent.type === "suite") {
    path.unshift(parent.name);
    parent = parent.parent;
  }
  return path;
}

function resultOf(test: TestCase, known: KnownTest, attempts: readonly TestAttempt[]): TestResultInit {
  const status = statusOf(test, known);
  const diagnostic = test.diagnostic();
  const last = attempts.at(-1);
  const result = test.result();
  const told = attempts.map((attempt, index) =>
    attemptOf(
      attempt,
      index < attempts.length - 1
        ? attempt.state === "passed"
          ? TestStatus.PASSED
          : TestStatus.FAILED
        : status,
    ),
  );
  // One attempt is told only where it has something to say besides the result.
  const single = [{ status, ...durationOf(diagnostic?.duration), failures: failuresOf(result.errors) }];
  return {
    test: known.identity,
    status,
    ...durationOf(attempts.length > 1 ? last?.duration : diagnostic?.duration),
    ...startTimeOf(attempts.length > 1 ? last?.startTime : diagnostic?.startTime),
    attempts: told.length > 1 ? told.slice(-100) : result.errors?.length ? single : [],
    tags: tagsOf(test),
    message: result.state === "skipped" ? textOf(result.note) : "",
    line: test.location?.line ?? 0,
  };
}

function statusOf(test: TestCase, known: KnownTest): TestStatus {
  const { state } = test.result();
  const { fails } = test.options;
  switch (state) {
    case "passed":
      return fails ? TestStatus.EXPECTED_FAILURE : TestStatus.PASSED;
    case "failed": {
      const passed = test.result().errors?.some(({ message }) => message === "Expect test to fail");
      return fails && passed ? TestStatus.UNEXPECTED_PASS : TestStatus.FAILED;
    }
    case "skipped":
      return known.leftOut === "todo" ? TestStatus.TODO : TestStatus.SKIPPED;
    case "pending":
      return TestStatus.INTERRUPTED;
  }
}

function attemptOf(attempt: TestAttempt, status: TestStatus) {
  return {
    status,
    ...startTimeOf(attempt.startTime),
    ...durationOf(attempt.duration),
    failures: failuresOf(attempt.errors),
  };
}

function tagsOf(test: TestCase): string[] {
  return (test.tags ?? []).filter((tag) => tag !== "" && tag.length <= 128).slice(0, 64);
}
