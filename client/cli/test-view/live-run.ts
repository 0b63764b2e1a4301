import { type Problem, ProblemSeverity } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import {
  type TestIdentity,
  type TestResult,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestCounts, TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { Interruption, TestRunNews } from "../../index.ts";
import { durationMs, timestampMs } from "../output/format.ts";
import { endedTests, isBad } from "./states.ts";

/** A test run as it is watched. */
export interface LiveRun {
  /** As it was last told as a whole. Undefined: not connected yet. */
  run: TestRun | undefined;
  counts: TestCounts | undefined;
  /** From 0 to 1. Undefined: no test is known yet. */
  share: number | undefined;
  /** Tests that run now, by their identity as text. */
  running: readonly TestIdentity[];
  /** How many run now; more than are named, perhaps. */
  runningCount: number;
  /** How long the run takes so far, and when that was told, in milliseconds. */
  elapsed: { readonly ms: number; readonly at: number } | undefined;
  isCaughtUp: boolean;
  /** Set once the run was asked to stop from here. */
  isCancelling: boolean;
  /** Set while the connection is lost. */
  interruption: Interruption | undefined;
}

/** Something that people are to see when it happens. */
export type LiveLine =
  | { readonly kind: "failure"; readonly result: TestResult }
  | { readonly kind: "problem"; readonly problem: Problem }
  | { readonly kind: "file"; readonly file: string; readonly message: string }
  | { readonly kind: "ended"; readonly run: TestRun };

export function createLiveRun(): LiveRun {
  return {
    run: undefined,
    counts: undefined,
    share: undefined,
    running: [],
    runningCount: 0,
    elapsed: undefined,
    isCaughtUp: false,
    isCancelling: false,
    interruption: undefined,
  };
}

/** Takes in what a watch tells, and returns what people are to see of it. */
export function applyNews(live: LiveRun, news: TestRunNews, now: number): LiveLine | undefined {
  live.interruption = undefined;
  switch (news.kind) {
    case "connected":
      takeRun(live, news.run, now);
      return undefined;
    case "caught-up":
      live.isCaughtUp = true;
      return undefined;
    case "progress": {
      const { counts, percent, runningTests, running, elapsed } = news.progress;
      live.counts = counts;
      live.share = percent === undefined ? undefined : percent / 100;
      live.running = runningTests;
      live.runningCount = running;
      if (elapsed !== undefined) live.elapsed = { ms: durationMs(elapsed), at: now };
      return undefined;
    }
    case "event":
      return applyEvent(live, news, now);
  }
}

function applyEvent(
  live: LiveRun,
  { event: { kind } }: Extract<TestRunNews, { kind: "event" }>,
  now: number,
): LiveLine | undefined {
  switch (kind.case) {
    case "testEnded":
      return isBad(kind.value.status) ? { kind: "failure", result: kind.value } : undefined;
    case "fileEnded": {
      const [failure] = kind.value.failures;
      return failure && { kind: "file", file: kind.value.file, message: failure.message };
    }
    case "problem":
      return { kind: "problem", problem: kind.value };
    case "ended":
      takeRun(live, kind.value, now);
      return { kind: "ended", run: kind.value };
    default:
      return undefined;
  }
}

function takeRun(live: LiveRun, run: TestRun, now: number): void {
  live.run = run;
  live.counts = run.counts;
  const total = run.counts?.total ?? 0;
  live.share = total === 0 ? undefined : endedTests(run.counts) / total;
  const { startTime, duration } = run;
  if (duration !== undefined) live.elapsed = { ms: durationMs(duration), at: now };
  else if (startTime !== undefined) live.elapsed = { ms: Math.max(0, now - timestampMs(startTime)), at: now };
  if (run.end === undefined) return;
  live.running = [];
  live.runningCount = 0;
}

/** A test that was interrupted needs no line of its own: the summary names what was running. */
export function isWorthALine(line: LiveLine): boolean {
  return line.kind !== "failure" || line.result.status !== TestStatus.INTERRUPTED;
}

export function isError(problem: Problem): boolean {
  return problem.severity === ProblemSeverity.ERROR;
}
