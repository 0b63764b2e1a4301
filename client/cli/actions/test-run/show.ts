import { toJson } from "@bufbuild/protobuf";
import {
  type TestResult,
  TestResultSchema,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { type TestRun, TestRunSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { TEST_STATUSES, type TestShowOptions } from "../../commands/test.ts";
import type { Context } from "../../context.ts";
import { parseLimit } from "../../input/limit.ts";
import { findRun } from "../../input/run-name.ts";
import { renderFacts } from "../../output/facts.ts";
import { formatMinute } from "../../output/keys.ts";
import { renderFailure } from "../../test-view/failure.ts";
import { renderSummary } from "../../test-view/summary.ts";
import { renderResults } from "../../test-view/tables.ts";
import { UsageError } from "../../usage-error.ts";
import { readPages } from "../pages.ts";

/** What is shown of a run unless the options choose something else: what did not do what it should. */
const BAD = [TestStatus.FAILED, TestStatus.UNEXPECTED_PASS, TestStatus.ERROR, TestStatus.INTERRUPTED];

export async function showRun(context: Context, name: string, options: TestShowOptions): Promise<undefined> {
  const wanted = parseLimit(options.limit);
  const chosen = (options.status ?? []).map(parseStatus);
  const isChosen = chosen.length > 0 || options.all === true;
  const { tests } = await context.connect();
  const { signal } = context.io;
  const runId = await findRun(tests, name, { project: options.project, signal });
  const { run } = await tests.getTestRun({ runId }, { signal });
  if (run === undefined) throw new UsageError(`The server did not describe test run ${runId}`);
  const filter = {
    statuses: isChosen ? chosen : BAD,
    filePrefix: options.file ?? "",
    nameContains: options.name ?? "",
  };
  const { items } = await readPages(wanted + 1, async (pageSize, pageToken) => {
    const page = await tests.listTestResults({ runId, filter, pageSize, pageToken }, { signal });
    return { items: page.results, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
  const results = items.slice(0, wanted);
  if (context.json) {
    return void (await context.printJson({
      run: toJson(TestRunSchema, run, { alwaysEmitImplicit: true }),
      results: results.map((result) => toJson(TestResultSchema, result, { alwaysEmitImplicit: true })),
    }));
  }
  await context.print(renderRun(context, run, results, isChosen));
  if (items.length > wanted) {
    await context.note(context.paintErr.dim("\nThere are more; --limit 0 lists all."));
  }
}

function renderRun(context: Context, run: TestRun, results: readonly TestResult[], asTable: boolean): string {
  const { paint } = context;
  const { context: tested } = run;
  const facts = renderFacts(paint, [
    ["framework", tested?.frameworkVersion || run.framework],
    ["commit", `${tested?.commit ?? ""}${tested?.dirty === true ? " with changes" : ""}`],
    ["branch", tested?.branch ?? ""],
    ["runtime", [tested?.runtime, tested?.platform].filter(Boolean).join(" on ")],
    ["host", tested?.host ?? ""],
    ["build", tested?.buildUrl ?? ""],
    ["started", formatMinute(run.startTime)],
    ["by", run.createdBy],
    [
      "labels",
      Object.entries(tested?.labels ?? {})
        .map(([key, value]) => `${key}=${value}`)
        .join(" "),
    ],
  ]);
  const body = asTable
    ? results.length === 0
      ? ["No result matches."]
      : [renderResults(context, results)]
    : results.flatMap((result, index) => [...(index === 0 ? [] : [""]), ...renderFailure(context, result)]);
  return [
    ...renderSummary(context, run),
    ...(facts === "" ? [] : [facts]),
    ...(body.length === 0 ? [] : ["", ...body]),
  ].join("\n");
}

function parseStatus(text: string): TestStatus {
  switch (text) {
    case "passed":
      return TestStatus.PASSED;
    case "failed":
      return TestStatus.FAILED;
    case "skipped":
      return TestStatus.SKIPPED;
    case "todo":
      return TestStatus.TODO;
    case "expected-failure":
      return TestStatus.EXPECTED_FAILURE;
    case "unexpected-pass":
      return TestStatus.UNEXPECTED_PASS;
    case "error":
      return TestStatus.ERROR;
    case "interrupted":
      return TestStatus.INTERRUPTED;
    case "not-run":
      return TestStatus.NOT_RUN;
    default:
      throw new UsageError(`--status: "${text}" is not one of ${TEST_STATUSES.join(", ")}`);
  }
}
