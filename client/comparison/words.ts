import type { Duration } from "@bufbuild/protobuf/wkt";
import {
  Confidence,
  PerformanceTrend,
  QualityTrend,
  TestChangeKind,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { type TestIdentity, TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";

/** How a kind of change is titled, in the order in which kinds are told. */
export const kindTitles: ReadonlyMap<TestChangeKind, string> = new Map([
  [TestChangeKind.NEWLY_FAILING, "newly failing"],
  [TestChangeKind.LOST, "lost"],
  [TestChangeKind.ADDED_FAILING, "new and failing"],
  [TestChangeKind.SLOWER, "slower"],
  [TestChangeKind.UNSTABLE, "unstable"],
  [TestChangeKind.STATUS_CHANGED, "other status"],
  [TestChangeKind.REMOVED, "removed"],
  [TestChangeKind.NEWLY_SKIPPED, "newly skipped"],
  [TestChangeKind.STILL_FAILING, "still failing"],
  [TestChangeKind.FIXED, "fixed"],
  [TestChangeKind.FASTER, "faster"],
  [TestChangeKind.NO_LONGER_SKIPPED, "no longer skipped"],
  [TestChangeKind.ADDED, "added"],
]);

export const statusWords: Readonly<Record<TestStatus, string>> = {
  [TestStatus.UNSPECIFIED]: "–",
  [TestStatus.PASSED]: "passed",
  [TestStatus.FAILED]: "failed",
  [TestStatus.SKIPPED]: "skipped",
  [TestStatus.TODO]: "todo",
  [TestStatus.EXPECTED_FAILURE]: "expected failure",
  [TestStatus.UNEXPECTED_PASS]: "unexpected pass",
  [TestStatus.ERROR]: "error",
  [TestStatus.INTERRUPTED]: "interrupted",
  [TestStatus.NOT_RUN]: "not run",
};

export const confidenceWords: Readonly<Record<Confidence, string>> = {
  [Confidence.UNSPECIFIED]: "",
  [Confidence.INSUFFICIENT_DATA]: "too little data",
  [Confidence.LOW]: "low",
  [Confidence.MEDIUM]: "medium",
  [Confidence.HIGH]: "high",
};

export const qualityWords: Readonly<Record<QualityTrend, string>> = {
  [QualityTrend.UNSPECIFIED]: "cannot be said",
  [QualityTrend.IMPROVING]: "improving",
  [QualityTrend.STABLE]: "stable",
  [QualityTrend.DECLINING]: "declining",
};

export const performanceWords: Readonly<Record<PerformanceTrend, string>> = {
  [PerformanceTrend.UNSPECIFIED]: "cannot be said",
  [PerformanceTrend.FASTER]: "faster",
  [PerformanceTrend.STABLE]: "stable",
  [PerformanceTrend.SLOWER]: "slower",
};

/** A test for people: suites and name from the outside in, with parameters. */
export function testName(test: TestIdentity | undefined): string {
  if (test === undefined) {
    return "";
  }
  const name = test.parameters === "" ? test.name : `${test.name}[${test.parameters}]`;
  return [...test.suitePath, name].join(" > ");
}

/** `0.4 ms`, `12 ms`, `1.5 s`, `2.5 min`; with its sign where `signed`. */
export function durationWords(duration: Duration | undefined, signed = false): string {
  if (duration === undefined) {
    return "";
  }
  const ms = Number(duration.seconds) * 1_000 + duration.nanos / 1e6;
  const size = Math.abs(ms);
  const text =
    size < 10
      ? `${short(size, 1)} ms`
      : size < 999.5
        ? `${Math.round(size)} ms`
        : size < 120_000
          ? `${short(size / 1_000, 1)} s`
          : `${short(size / 60_000, 1)} min`;
  return ms < 0 ? `-${text}` : signed && ms > 0 ? `+${text}` : text;
}

/** `+25 %`. */
export function percentWords(percent: number): string {
  const digits = Math.abs(percent) < 10 ? 1 : 0;
  return `${percent > 0 ? "+" : ""}${short(percent, digits)} %`;
}

function short(value: number, digits: number): string {
  return String(Number(value.toFixed(digits)));
}
