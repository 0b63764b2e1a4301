import { timestampDate } from "@bufbuild/protobuf/wkt";
import {
  type TestIdentity,
  type TestResult,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { goTestName } from "../../runners/go-test-name.ts";
import { attemptsOf, isFailing } from "./attempts.ts";
import { secondsOf } from "./junit-writer.ts";
import { UnsupportedExportError } from "./unsupported.ts";

/**
 * Writes what `go test -json` would have written. It knows pass, fail and skip: errors, interrupted tests and unexpected
 * passes are written as fail, expected failures as pass, tests that did not run and those to be written as skip.
 */
export async function* writeGoTest(results: AsyncIterable<TestResult>): AsyncGenerator<string> {
  const failed = new Map<string, boolean>();
  for await (const result of results) {
    const { test } = result;
    if (test === undefined) {
      continue;
    }
    if (test.framework !== "go-test") {
      throw new UnsupportedExportError(
        "only the results of go test can be written as it writes them; use JUnit XML",
      );
    }
    failed.set(test.file, (failed.get(test.file) ?? false) || isFailing(result.status));
    yield* eventsOf(result, test);
  }
  for (const [name, hasFailed] of failed) {
    yield line({ Action: hasFailed ? "fail" : "pass", Package: name });
  }
}

function* eventsOf(result: TestResult, test: TestIdentity): Generator<string> {
  const [, last] = attemptsOf(result);
  const about = {
    ...(result.startTime && { Time: timestampDate(result.startTime).toISOString() }),
    Package: test.file,
    Test: goTestName(test),
  };
  yield line({ Action: "run", ...about });
  const said =
    last.stdout || last.failures.map(({ stack, message }) => stack || message).join("\n") || result.message;
  for (const text of said === "" ? [] : said.replace(/\n$/, "").split("\n")) {
    yield line({ Action: "output", ...about, Output: `${text}\n` });
  }
  const elapsed = result.duration === undefined ? {} : { Elapsed: Number(secondsOf(result.duration)) };
  yield line({ Action: actionOf(result.status), ...about, ...elapsed });
}

function actionOf(status: TestStatus): string {
  switch (status) {
    case TestStatus.SKIPPED:
    case TestStatus.TODO:
    case TestStatus.NOT_RUN:
      return "skip";
    default:
      return isFailing(status) ? "fail" : "pass";
  }
}

function line(event: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify(event)}\n`;
}
