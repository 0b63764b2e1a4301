import { toJson } from "@bufbuild/protobuf";
import { type Duration, durationMs, type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import {
  type Attachment,
  type TestAttempt,
  TestIdentitySchema,
  type TestResult,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { CURRENT_SPEC_VERSION, REPORT_FORMAT } from "ctrf";
import { type CtrfStatus, rawStatusOf, toCtrfStatus } from "../ctrf/status.ts";
import { attemptsOf } from "./attempts.ts";

/**
 * Writes the Common Test Report Format. Statuses that it does not know stand in `rawStatus`; the identity and the exact
 * duration in `extra.toolplane`, so that reading it gives the same again.
 */
export async function* writeCtrf(run: TestRun, results: AsyncIterable<TestResult>): AsyncGenerator<string> {
  const counts: Record<CtrfStatus, number> = { passed: 0, failed: 0, skipped: 0, pending: 0, other: 0 };
  let tests = 0;
  let flaky = 0;
  const head = {
    tool: { name: run.framework || "unknown" },
    environment: environmentOf(run),
  };
  const about = `"reportFormat":"${REPORT_FORMAT}","specVersion":"${CURRENT_SPEC_VERSION}","generatedBy":"toolplane"`;
  yield `{${about},"runId":${JSON.stringify(run.id || "unknown")},"results":${JSON.stringify(head).slice(0, -1)},"tests":[`;
  for await (const result of results) {
    if (result.test === undefined) {
      continue;
    }
    const test = testOf(result);
    counts[test.status]++;
    flaky += test.flaky ? 1 : 0;
    yield `${tests === 0 ? "" : ","}\n${JSON.stringify(test)}`;
    tests++;
  }
  const start = msOf(run.startTime ?? run.createTime);
  const summary = { tests, ...counts, flaky, start, stop: Math.max(start, msOf(run.endTime)) };
  yield `\n],"summary":${JSON.stringify(summary)}}}\n`;
}

function environmentOf({ environment, context }: TestRun) {
  return {
    ...(environment !== "" && { testEnvironment: environment }),
    ...(context?.commit && { commit: context.commit }),
    ...(context?.branch && { branchName: context.branch }),
    ...(context?.buildUrl && { buildUrl: context.buildUrl }),
    ...(context?.platform && { osPlatform: context.platform }),
  };
}

function testOf(result: TestResult) {
  const { test, status, duration, startTime, line, tags } = result;
  const [earlier, last] = attemptsOf(result);
  const ctrfStatus = toCtrfStatus(status);
  const labels = Object.entries(result.properties);
  const attachments = result.attachments.flatMap(attachmentOf);
  const start = startTime === undefined ? undefined : msOf(startTime);
  return {
    name: test?.name ?? "",
    status: ctrfStatus,
    rawStatus: rawStatusOf(status),
    duration: wholeMs(duration) ?? 0,
    ...(start !== undefined && { start, stop: start + (wholeMs(duration) ?? 0) }),
    ...((test?.suitePath.length ?? 0) > 0 && { suite: test?.suitePath }),
    ...(test?.file && { filePath: test.file }),
    ...(line !== 0 && { line }),
    ...(tags.length > 0 && { tags }),
    ...(labels.length > 0 && { labels: Object.fromEntries(labels) }),
    ...(earlier.length > 0 && {
      retries: earlier.length,
      retryAttempts: earlier.map((attempt, index) => ({ attempt: index + 1, ...attemptOf(attempt) })),
    }),
    flaky: ctrfStatus === "passed" && earlier.length > 0,
    ...saidOf(last, result.message),
    ...(attachments.length > 0 && { attachments }),
    extra: {
      toolplane: {
        ...(test && { test: toJson(TestIdentitySchema, test) }),
        ...(duration && {
          durationNanos: String(duration.seconds * 1_000_000_000n + BigInt(duration.nanos)),
        }),
      },
    },
  };
}

function attemptOf(attempt: TestAttempt) {
  const duration = wholeMs(attempt.duration);
  return {
    status: toCtrfStatus(attempt.status),
    ...(duration !== undefined && { duration }),
    ...(attempt.startTime && { start: msOf(attempt.startTime) }),
    ...saidOf(attempt, ""),
  };
}

function saidOf({ failures: [failure], stdout, stderr }: TestAttempt, message: string) {
  const said = failure?.message || message;
  return {
    ...(said && { message: said }),
    ...(failure?.stack && { trace: failure.stack }),
    ...(stdout && { stdout: stdout.split("\n") }),
    ...(stderr && { stderr: stderr.split("\n") }),
  };
}

/** CTRF names files; content has no place in it. */
function attachmentOf({ name, mediaType, source }: Attachment) {
  return source.case === "uri"
    ? [{ name, contentType: mediaType || "application/octet-stream", path: source.value }]
    : [];
}

function wholeMs(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : Math.round(durationMs(duration));
}

function msOf(time: Timestamp | undefined): number {
  return time === undefined ? 0 : Math.round(timestampMs(time));
}
