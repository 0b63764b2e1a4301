import { type TestIdentity, TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import {
  type TestCounts,
  type TestRun,
  TestRunEndReason,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { Colors } from "picocolors/types.js";
import type { Cell } from "../output/columns.ts";

// Every state is a word first; the colour only helps the eye.

export function testRunState(state: TestRunState, paint: Colors): Exclude<Cell, string> {
  switch (state) {
    case TestRunState.QUEUED:
      return { text: "○ queued", style: paint.dim };
    case TestRunState.RUNNING:
      return { text: "● running", style: paint.cyan };
    case TestRunState.PASSED:
      return { text: "✓ passed", style: paint.green };
    case TestRunState.FAILED:
      return { text: "✗ failed", style: paint.red };
    case TestRunState.CANCELLED:
      return { text: "■ cancelled", style: paint.magenta };
    case TestRunState.ERROR:
      return { text: "▲ error", style: paint.yellow };
    case TestRunState.UNSPECIFIED:
      return { text: "? unknown", style: paint.dim };
  }
}

/** The state of a run; one that passed because nothing ran, or all was skipped, has not shown anything. */
export function runVerdict(run: TestRun, paint: Colors): Exclude<Cell, string> {
  return isEmptyPass(run) ? { text: "▲ no tests ran", style: paint.yellow } : testRunState(run.state, paint);
}

export function isEmptyPass({ state, counts }: TestRun): boolean {
  return state === TestRunState.PASSED && (counts?.passed ?? 0) + (counts?.expectedFailures ?? 0) === 0;
}

export function testStatus(status: TestStatus, paint: Colors): Exclude<Cell, string> {
  switch (status) {
    case TestStatus.PASSED:
      return { text: "✓ passed", style: paint.green };
    case TestStatus.FAILED:
      return { text: "✗ failed", style: paint.red };
    case TestStatus.SKIPPED:
      return { text: "- skipped", style: paint.dim };
    case TestStatus.TODO:
      return { text: "- to do", style: paint.dim };
    case TestStatus.EXPECTED_FAILURE:
      return { text: "✓ failed as it should", style: paint.green };
    case TestStatus.UNEXPECTED_PASS:
      return { text: "✗ passed unexpectedly", style: paint.red };
    case TestStatus.ERROR:
      return { text: "▲ error", style: paint.red };
    case TestStatus.INTERRUPTED:
      return { text: "▲ interrupted", style: paint.yellow };
    case TestStatus.NOT_RUN:
      return { text: "○ not run", style: paint.yellow };
    case TestStatus.UNSPECIFIED:
      return { text: "? unknown", style: paint.dim };
  }
}

/** Whether a test did not do what it should. */
export function isBad(status: TestStatus): boolean {
  switch (status) {
    case TestStatus.FAILED:
    case TestStatus.UNEXPECTED_PASS:
    case TestStatus.ERROR:
    case TestStatus.INTERRUPTED:
      return true;
    case TestStatus.PASSED:
    case TestStatus.SKIPPED:
    case TestStatus.TODO:
    case TestStatus.EXPECTED_FAILURE:
    case TestStatus.NOT_RUN:
    case TestStatus.UNSPECIFIED:
      return false;
  }
}

/** Why a run has no verdict, in words; empty when it has one. */
export function endReason(reason: TestRunEndReason): string {
  switch (reason) {
    case TestRunEndReason.UNSPECIFIED:
      return "";
    case TestRunEndReason.CANCELLED:
      return "it was cancelled";
    case TestRunEndReason.TIMEOUT:
      return "it took longer than it may";
    case TestRunEndReason.NOT_STARTED:
      return "the runner could not be started";
    case TestRunEndReason.CRASHED:
      return "the runner ended before all its tests";
    case TestRunEndReason.SILENT:
      return "nothing was reported for too long";
    case TestRunEndReason.SERVER_LOST:
      return "the server that ran it went away";
    case TestRunEndReason.RUNNER_ERROR:
      return "the runner ended with an error besides its tests";
    case TestRunEndReason.INCOMPLETE:
      return "what was imported is not complete";
  }
}

/** A part of the counts in words, such as `3 failed`, with how to colour it. What is 0 is left out. */
export function countParts(counts: TestCounts | undefined, paint: Colors): Exclude<Cell, string>[] {
  if (counts === undefined) return [];
  const parts = [
    { n: counts.failed, word: "failed", style: paint.red },
    { n: counts.errors, word: counts.errors === 1 ? "error" : "errors", style: paint.red },
    { n: counts.interrupted, word: "interrupted", style: paint.yellow },
    { n: counts.notRun, word: "not run", style: paint.yellow },
    { n: counts.passed, word: "passed", style: paint.green },
    { n: counts.expectedFailures, word: "failed as they should", style: paint.green },
    { n: counts.skipped, word: "skipped", style: paint.dim },
    { n: counts.flaky, word: "after retries", style: paint.yellow },
  ];
  return parts
    .filter(({ n }) => n > 0)
    .map(({ n, word, style }) => ({ text: `${n.toLocaleString("en")} ${word}`, style }));
}

/** How many tests have ended. */
export function endedTests(counts: TestCounts | undefined): number {
  if (counts === undefined) return 0;
  const { passed, failed, skipped, expectedFailures, errors, interrupted, notRun } = counts;
  return passed + failed + skipped + expectedFailures + errors + interrupted + notRun;
}

/** The name of a test for people: file, suites and name from the outside in, with its parameters. */
export function testTitle(test: TestIdentity | undefined): string {
  if (test === undefined) return "";
  const { file, variant } = test;
  const where = variant === "" ? file : `[${variant}] ${file}`;
  return [where, testName(test)].filter((part) => part !== "").join(" > ");
}

/** The same without its file. */
export function testName({ suitePath, name, parameters }: TestIdentity): string {
  return [...suitePath, parameters === "" ? name : `${name}[${parameters}]`].join(" > ");
}
