import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ProjectHistory,
  ProjectHistorySchema,
  type TestHistory,
  type TrendPointSchema,
} from "@toolplane/gen/toolplane/testing/v1/history_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { optionalMilliseconds } from "../../config/durations.ts";
import type { HistoryRun } from "./source.ts";
import { changesOf, runTimeMs } from "./test-history.ts";
import { projectTrend } from "./trend.ts";

/** A project's runs, the newest first, and its flaky tests, the worst first. */
export function projectHistory(
  project: string,
  runs: readonly HistoryRun[],
  flakyTests: readonly TestHistory[],
): ProjectHistory {
  const counted = runs.filter(({ excluded, run }) => !excluded && isWhole(run) && ranTests(run) > 0);
  const trend = projectTrend(
    counted.toReversed().map(({ run }) => ({
      passRate: passRate(run),
      testTimeMs: testTimeMs(run),
      tests: ranTests(run),
    })),
  );
  return create(ProjectHistorySchema, {
    project,
    points: runs.map(toPoint),
    quality: trend.quality,
    performance: trend.performance,
    verdicts: [...trend.verdicts],
    flakyTests: [...flakyTests],
    changePoints: changesOf(
      counted.map(({ run }) => ({
        runId: run.id,
        timeMs: runTimeMs({ run }),
        commit: run.context?.commit ?? "",
        environment: run.environment,
        ms: testTimeMs(run),
      })),
    ),
  });
}

function toPoint(point: HistoryRun): MessageInitShape<typeof TrendPointSchema> {
  const { run, excluded } = point;
  const { coverage } = run;
  return {
    runId: run.id,
    time: timestampFromMs(runTimeMs(point)),
    commit: run.context?.commit ?? "",
    state: run.state,
    ...(run.counts && { counts: run.counts }),
    passRate: passRate(run),
    ...(run.testTime && { testTime: run.testTime }),
    ...(coverage &&
      coverage.linesTotal > 0n && {
        lineCoverage: (100 * Number(coverage.linesCovered)) / Number(coverage.linesTotal),
      }),
    excluded,
  };
}

/** Whether all tests were asked for. What a part of them took says nothing of the whole. */
function isWhole({ selection }: TestRun): boolean {
  return (
    selection === undefined ||
    (selection.files.length === 0 &&
      selection.namePattern === "" &&
      selection.tags.length === 0 &&
      selection.failedInRun === "" &&
      selection.testIds.length === 0)
  );
}

function testTimeMs(run: TestRun): number {
  return optionalMilliseconds(run.testTime) ?? 0;
}

/** Tests that ran to an outcome. */
function ranTests({ counts }: TestRun): number {
  return counts === undefined ? 0 : counts.passed + counts.failed + counts.errors + counts.expectedFailures;
}

function passRate(run: TestRun): number {
  const ran = ranTests(run);
  return ran === 0 ? 0 : ((run.counts?.passed ?? 0) + (run.counts?.expectedFailures ?? 0)) / ran;
}
