import { create, toBinary } from "@bufbuild/protobuf";
import { TestIdentitySchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import {
  type TestRunEnd,
  TestRunEndReason,
  TestRunEndSchema,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { countsAtEnd, type RunState } from "./run-state.ts";
import type { RunOutcome } from "./runs.ts";

/** As many as an end names; see toolplane.testing.v1.TestRunEnd. */
const MAX_NAMED = 1_000;
/** And no more bytes: every list of runs has the end of each. */
const MAX_NAMED_BYTES = 64 * 1024;
/** Fewer tests that fail alike may well have one cause in the code. */
const MIN_TESTS_TO_BLAME_ENVIRONMENT = 10;
const SHARE_TO_BLAME_ENVIRONMENT = 0.8;
/** The same for files that cannot be loaded. */
const MIN_FILES_TO_BLAME_ENVIRONMENT = 3;

/** Of the failures of a run, how many there are, and how many the most frequent kind has; see `failureKind`. */
export interface FailureKinds {
  readonly failures: number;
  readonly alike: number;
}

/** How a run ends, given all its events and how its runner ended. */
export function endOf(state: RunState, outcome: RunOutcome, kinds: FailureKinds): TestRunEnd {
  const reason = reasonOf(state, outcome);
  return create(TestRunEndSchema, {
    state: stateOf(state, reason),
    reason,
    message: outcome.message || messageOf(state, outcome, reason),
    ...(outcome.exitCode === undefined ? {} : { exitCode: outcome.exitCode }),
    signal: outcome.signal ?? "",
    runningTests: firstOf(
      state.running.values(),
      ({ test }) => toBinary(TestIdentitySchema, test).length,
    ).map(({ test }) => test),
    runningFiles: firstOf(state.runningFiles, (file) => file.length),
    notRun: countsAtEnd(state).notRun,
    infrastructureFailure: isInfrastructureFailure(state, reason, kinds),
  });
}

/** As many as an end may name, and at least one. */
function firstOf<T>(items: Iterable<T>, sizeOf: (item: T) => number): T[] {
  const first: T[] = [];
  let bytes = 0;
  for (const item of items) {
    bytes += sizeOf(item);
    if (first.length === MAX_NAMED || (bytes > MAX_NAMED_BYTES && first.length > 0)) {
      break;
    }
    first.push(item);
  }
  return first;
}

/** Whether a run came to its end and nothing is to be said of it: no test was known, and no file failed. */
export function isEmpty(state: RunState, { reason }: TestRunEnd): boolean {
  return reason === TestRunEndReason.UNSPECIFIED && state.counts.total === 0 && state.filesFailed === 0;
}

export const NO_TEST_WAS_RUN =
  "No test was run: the selection, or what the runner takes for test files, fits none";

/** Why there is no verdict, where the runner did not say so itself. */
function reasonOf(state: RunState, { reason, exitCode, signal = "" }: RunOutcome): TestRunEndReason {
  if (reason !== TestRunEndReason.UNSPECIFIED) {
    return reason;
  }
  const failed = hasFailures(state);
  const wasInterrupted = [...state.running.keys()].some((id) => state.unreported.has(id));
  if (signal !== "" || wasInterrupted || (state.unreported.size > 0 && !failed)) {
    return TestRunEndReason.CRASHED;
  }
  return exitCode !== undefined && exitCode !== 0 && !failed
    ? TestRunEndReason.RUNNER_ERROR
    : TestRunEndReason.UNSPECIFIED;
}

function hasFailures({ counts, filesFailed }: RunState): boolean {
  return counts.failed + counts.errors + counts.interrupted + filesFailed > 0;
}

function stateOf(state: RunState, reason: TestRunEndReason): TestRunState {
  switch (reason) {
    case TestRunEndReason.UNSPECIFIED:
      return hasFailures(state) ? TestRunState.FAILED : TestRunState.PASSED;
    case TestRunEndReason.CANCELLED:
      return TestRunState.CANCELLED;
    case TestRunEndReason.TIMEOUT:
    case TestRunEndReason.NOT_STARTED:
    case TestRunEndReason.CRASHED:
    case TestRunEndReason.SILENT:
    case TestRunEndReason.SERVER_LOST:
    case TestRunEndReason.RUNNER_ERROR:
    case TestRunEndReason.INCOMPLETE:
      return TestRunState.ERROR;
    default:
      // A reason that a later contract has added says why there is no verdict.
      return TestRunState.ERROR;
  }
}

function messageOf(state: RunState, { exitCode, signal = "" }: RunOutcome, reason: TestRunEndReason): string {
  const lost = state.unreported.size > 0;
  switch (reason) {
    case TestRunEndReason.UNSPECIFIED:
      return state.filesFailed > 0 ? `${state.filesFailed} files could not be loaded or run` : "";
    case TestRunEndReason.CANCELLED:
      return "It was cancelled";
    case TestRunEndReason.TIMEOUT:
      return "It took longer than it may";
    case TestRunEndReason.NOT_STARTED:
      return "The runner could not be started";
    case TestRunEndReason.CRASHED:
      return [
        signal === "" ? "The runner ended" : `The runner was ended by ${signal}`,
        exitCode === undefined ? "" : ` with exit code ${exitCode}`,
        lost ? " before all its tests had" : "",
      ].join("");
    case TestRunEndReason.SILENT:
      return "Nothing was reported for too long";
    case TestRunEndReason.SERVER_LOST:
      return "The server that ran it went away";
    case TestRunEndReason.RUNNER_ERROR:
      return `The runner ended with ${exitCode === undefined ? "an error" : `exit code ${exitCode}`} although no test failed`;
    case TestRunEndReason.INCOMPLETE:
      return "What was imported is not complete";
    default:
      return "";
  }
}

/**
 * Whether the environment is to blame rather than the code: the runner could not be started or was lost with its server;
 * not one test could run since every one of at least 3 files failed; or at least 80 % of at least 10 tests that ran failed, and at least
 * 80 % of them in the same way.
 */
function isInfrastructureFailure(state: RunState, reason: TestRunEndReason, kinds: FailureKinds): boolean {
  switch (reason) {
    case TestRunEndReason.NOT_STARTED:
    case TestRunEndReason.SERVER_LOST:
    case TestRunEndReason.SILENT:
      return true;
    default:
  }
  const { passed, failed, errors, expectedFailures } = state.counts;
  const ran = passed + failed + errors + expectedFailures;
  if (ran === 0) {
    return state.filesEnded >= MIN_FILES_TO_BLAME_ENVIRONMENT && state.filesFailed === state.filesEnded;
  }
  return (
    ran >= MIN_TESTS_TO_BLAME_ENVIRONMENT &&
    failed + errors >= SHARE_TO_BLAME_ENVIRONMENT * ran &&
    kinds.alike >= SHARE_TO_BLAME_ENVIRONMENT * (failed + errors)
  );
}
