import { create } from "@bufbuild/protobuf";
import { durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import {
  type TestAttempt,
  TestAttemptSchema,
  type TestIdentity,
  type TestResult,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { testIdOf } from "./test-id.ts";

/** How many tests ended how; see toolplane.testing.v1.TestCounts. */
export interface Counts {
  total: number;
  passed: number;
  failed: number;
  skipped: number;
  expectedFailures: number;
  errors: number;
  interrupted: number;
  notRun: number;
  flaky: number;
}

/** A test that runs now. */
export interface RunningTest {
  readonly test: TestIdentity;
  /** From 1. */
  readonly attempt: number;
}

/** As many attempts as a result may have; see toolplane.testing.v1.TestResult. */
const MAX_ATTEMPTS = 100;
/** Of tests that have not ended, so many attempts are kept with what they wrote and why they failed. */
const MAX_WHOLE_ATTEMPTS = 2_000;

/**
 * What the events of a run come to: a pure fold, so that every replica that has read the same events knows the same. Of a
 * test that has ended only its id, status and duration are kept.
 */
export interface RunState {
  /** The number of the last event. */
  readonly lastSequence: number;
  /** How many events there were without those that were emptied because there were too many. */
  readonly events: number;
  /** Their size. */
  readonly bytes: number;
  readonly started: boolean;
  /** When the runner was started, in milliseconds since 1970. Undefined: not yet. */
  readonly startTime: number | undefined;
  readonly ended: boolean;
  readonly counts: Readonly<Counts>;
  /** The sum of the durations of all tests, in microseconds. */
  readonly testTimeUs: number;
  /** By id, those that began first first. */
  readonly running: ReadonlyMap<string, RunningTest>;
  /** By id: the tests that are known and have not ended, running or not. */
  readonly unreported: ReadonlyMap<string, TestIdentity>;
  /** Files that began and did not end. */
  readonly runningFiles: ReadonlySet<string>;
  /** Files that ended, and how many of them could not be loaded or run. */
  readonly filesEnded: number;
  readonly filesFailed: number;
  /** Attempts that were reported of tests that have not ended, by id. */
  readonly attempts: ReadonlyMap<string, readonly TestAttempt[]>;
  /** How much of `unreported`, `running`, `runningFiles` and `attempts` is text that reporters have sent, roughly in bytes. */
  readonly heldBytes: number;
  /** Whether an event said that from now on output is left out. */
  readonly outputDropped: boolean;
  /**
   * Adds the next event.
   *
   * @param size how many bytes the event takes in the log
   */
  apply(event: TestEvent, sequence: number, size: number): void;
}

/** What is said, once, when output is left out from then on. */
export const OUTPUT_DROPPED_PLACE = "toolplane:output-dropped";

export function createRunState(): RunState {
  return new Fold();
}

/** Status, flakiness and duration of a test in one number, of which 48 bits are left for the microseconds. */
function pack(status: TestStatus, flaky: boolean, durationUs: number): number {
  return durationUs * 32 + status * 2 + (flaky ? 1 : 0);
}

/** 8 years in microseconds: the most that `pack` takes. */
const MAX_DURATION_US = 2 ** 48 - 1;

class Fold implements RunState {
  lastSequence = 0;
  events = 0;
  bytes = 0;
  started = false;
  startTime: number | undefined;
  ended = false;
  outputDropped = false;
  readonly counts: Counts = emptyCounts();
  testTimeUs = 0;
  readonly running = new Map<string, RunningTest>();
  readonly unreported = new Map<string, TestIdentity>();
  readonly runningFiles = new Set<string>();
  filesEnded = 0;
  filesFailed = 0;
  readonly attempts = new Map<string, TestAttempt[]>();
  /** How each test ended, packed. */
  readonly #ended = new Map<string, number>();
  /** How many attempts are in `attempts`. */
  #attemptsHeld = 0;
  /** The size of the attempts of each test in `attempts`. */
  readonly #attemptBytes = new Map<string, number>();
  heldBytes = 0;

  apply({ kind, time }: TestEvent, sequence: number, size: number): void {
    this.lastSequence = sequence;
    this.bytes += size;
    if (kind.case !== "output" || kind.value.text !== "") {
      this.events += 1;
    }
    switch (kind.case) {
      case "created":
      case "output":
      case "coverage":
      case undefined:
        return;
      case "problem":
        this.outputDropped ||= kind.value.place === OUTPUT_DROPPED_PLACE;
        return;
      case "started":
        this.started = true;
        this.startTime = time && timestampMs(time);
        return;
      case "testsFound":
        for (const test of kind.value.tests) {
          this.#know(testIdOf(test), test);
        }
        return;
      case "fileStarted":
        this.heldBytes += this.runningFiles.has(kind.value.file) ? 0 : kind.value.file.length;
        this.runningFiles.add(kind.value.file);
        return;
      case "fileEnded":
        this.heldBytes -= this.runningFiles.delete(kind.value.file) ? kind.value.file.length : 0;
        this.filesEnded += 1;
        this.filesFailed += kind.value.failures.length > 0 ? 1 : 0;
        return;
      case "testStarted":
        if (kind.value.test !== undefined) {
          this.#start(kind.value.test, kind.value.attempt || 1);
        }
        return;
      case "attemptEnded":
        if (kind.value.test !== undefined && kind.value.result !== undefined) {
          this.#endAttempt(kind.value.test, kind.value.result, size);
        }
        return;
      case "testEnded":
        this.#end(kind.value);
        return;
      case "ended":
        this.#endRun();
        return;
    }
  }

  #know(id: string, test: TestIdentity): void {
    if (!this.#ended.has(id) && !this.unreported.has(id)) {
      this.unreported.set(id, test);
      this.heldBytes += textOf(test);
      this.counts.total += 1;
    }
  }

  #start(test: TestIdentity, attempt: number): void {
    const id = testIdOf(test);
    this.#know(id, test);
    this.heldBytes += textOf(test) - textOf(this.running.get(id)?.test);
    this.running.set(id, { test, attempt });
  }

  #endAttempt(test: TestIdentity, result: TestAttempt, size: number): void {
    const id = testIdOf(test);
    this.#know(id, test);
    const attempts = this.attempts.get(id) ?? [];
    // The last place is for the attempt that ends the test.
    if (attempts.length < MAX_ATTEMPTS - 1) {
      this.#attemptsHeld += 1;
      const isWhole = this.#attemptsHeld <= MAX_WHOLE_ATTEMPTS;
      attempts.push(isWhole ? result : withoutText(result));
      const bytes = isWhole ? size : 0;
      this.heldBytes += bytes;
      this.#attemptBytes.set(id, (this.#attemptBytes.get(id) ?? 0) + bytes);
    }
    this.attempts.set(id, attempts);
  }

  #end(result: TestResult): void {
    const { test, duration, status } = result;
    if (test === undefined) {
      return;
    }
    // The server has set it where it has written the event itself.
    const id = result.testId || testIdOf(test);
    const attempts = attemptsOf(result, this.attempts.get(id)).length;
    const flaky = status === TestStatus.PASSED && attempts > 1;
    const us = duration ? Math.min(Math.max(Math.round(durationMs(duration) * 1e3), 0), MAX_DURATION_US) : 0;
    this.#record(id, status, flaky, us);
    this.heldBytes -= textOf(this.unreported.get(id)) + textOf(this.running.get(id)?.test);
    this.heldBytes -= this.#attemptBytes.get(id) ?? 0;
    this.unreported.delete(id);
    this.running.delete(id);
    this.#attemptBytes.delete(id);
    this.#attemptsHeld -= this.attempts.get(id)?.length ?? 0;
    this.attempts.delete(id);
  }

  #record(id: string, status: TestStatus, flaky: boolean, durationUs: number): void {
    const before = this.#ended.get(id);
    if (before === undefined) {
      this.counts.total += this.unreported.has(id) ? 0 : 1;
    } else {
      const statusBefore: TestStatus = Math.floor((before % 32) / 2);
      countStatus(this.counts, statusBefore, before % 2 === 1, -1);
      this.testTimeUs -= Math.floor(before / 32);
    }
    countStatus(this.counts, status, flaky, 1);
    this.testTimeUs += durationUs;
    this.#ended.set(id, pack(status, flaky, durationUs));
  }

  /** What has not ended by now never will. */
  #endRun(): void {
    this.ended = true;
    for (const { id, status } of [...lostTests(this)]) {
      this.#record(id, status, false, 0);
    }
    this.unreported.clear();
    this.running.clear();
    this.attempts.clear();
    this.#attemptsHeld = 0;
    this.#attemptBytes.clear();
    this.runningFiles.clear();
    this.heldBytes = 0;
  }
}

/** How many characters the parts of an identity have. */
function textOf(test: TestIdentity | undefined): number {
  if (test === undefined) {
    return 0;
  }
  const { framework, project, file, suitePath, name, parameters, variant } = test;
  const rest = framework.length + project.length + file.length + name.length + parameters.length;
  return suitePath.reduce((sum, suite) => sum + suite.length, rest + variant.length);
}

/** A test that did not end before its run did. */
export interface LostTest {
  readonly id: string;
  readonly test: TestIdentity;
  readonly status: TestStatus.INTERRUPTED | TestStatus.NOT_RUN;
}

/**
 * What becomes of tests when the run ends now: of those that run first, then of those that were never reported. A test
 * that has ended before and was started again keeps what it came to.
 */
export function* lostTests({
  running,
  unreported,
}: Pick<RunState, "running" | "unreported">): Generator<LostTest, void, undefined> {
  for (const [id, { test }] of running) {
    if (unreported.has(id)) {
      yield { id, test, status: TestStatus.INTERRUPTED };
    }
  }
  for (const [id, test] of unreported) {
    if (!running.has(id)) {
      yield { id, test, status: TestStatus.NOT_RUN };
    }
  }
}

/** How many tests ended how if the run ends now. */
export function countsAtEnd(state: Pick<RunState, "counts" | "running" | "unreported">): Counts {
  const counts = { ...state.counts };
  for (const { status } of lostTests(state)) {
    countStatus(counts, status, false, 1);
  }
  return counts;
}

/**
 * All attempts of a test that ended: those that its result lists, unless more were reported before; then those, and the
 * one that ended the test.
 */
export function attemptsOf(
  { attempts }: TestResult,
  before: readonly TestAttempt[] = [],
): readonly (TestAttempt | "last")[] {
  return attempts.length > before.length ? attempts : [...before, attempts.at(-1) ?? "last"];
}

function withoutText({ status, startTime, duration }: TestAttempt): TestAttempt {
  return create(TestAttemptSchema, {
    status,
    ...(startTime && { startTime }),
    ...(duration && { duration }),
  });
}

export function emptyCounts(): Counts {
  return {
    total: 0,
    passed: 0,
    failed: 0,
    skipped: 0,
    expectedFailures: 0,
    errors: 0,
    interrupted: 0,
    notRun: 0,
    flaky: 0,
  };
}

function countStatus(counts: Counts, status: TestStatus, flaky: boolean, change: 1 | -1): void {
  switch (status) {
    case TestStatus.PASSED:
      counts.passed += change;
      counts.flaky += flaky ? change : 0;
      return;
    case TestStatus.FAILED:
    case TestStatus.UNEXPECTED_PASS:
      counts.failed += change;
      return;
    case TestStatus.SKIPPED:
    case TestStatus.TODO:
      counts.skipped += change;
      return;
    case TestStatus.EXPECTED_FAILURE:
      counts.expectedFailures += change;
      return;
    case TestStatus.ERROR:
      counts.errors += change;
      return;
    case TestStatus.INTERRUPTED:
      counts.interrupted += change;
      return;
    case TestStatus.NOT_RUN:
      counts.notRun += change;
      return;
    case TestStatus.UNSPECIFIED:
      // Refused before it is written.
      return;
  }
}
