import { create } from "@bufbuild/protobuf";
import type { CoverageTotals } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { GetTestCoverageResponseSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { shortRunId } from "../../../reporting/run-id.ts";
import type { TestCoverageOptions } from "../../commands/test.ts";
import type { Context } from "../../context.ts";
import { parseLimit } from "../../input/limit.ts";
import { findRun } from "../../input/run-name.ts";
import { count } from "../../output/format.ts";
import { renderCoverage, shareCell } from "../../test-view/tables.ts";
import { readPages } from "../pages.ts";

export async function showCoverage(
  context: Context,
  name: string,
  options: TestCoverageOptions,
): Promise<undefined> {
  const wanted = parseLimit(options.limit);
  const { tests } = await context.connect();
  const { signal } = context.io;
  const runId = await findRun(tests, name, { project: options.project, signal });
  const filePrefix = options.file ?? "";
  let totals: CoverageTotals | undefined;
  const { items } = await readPages(wanted + 1, async (pageSize, pageToken) => {
    const page = await tests.getTestCoverage({ runId, filePrefix, pageSize, pageToken }, { signal });
    totals ??= page.totals;
    return { items: page.files, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
  const files = items.slice(0, wanted);
  if (context.json) {
    const response = create(GetTestCoverageResponseSchema, { files, ...(totals && { totals }) });
    return void (await context.printMessage(GetTestCoverageResponseSchema, response));
  }
  if (files.length === 0) {
    return void (await context.note(
      filePrefix === ""
        ? `Run ${shortRunId(runId)} has no coverage. Measure it with --coverage of test run or test report, or bring it: toolplane test import <file> --run ${shortRunId(runId)}`
        : "No file with coverage begins so.",
    ));
  }
  await context.print(renderCoverage(context, files));
  if (totals !== undefined) await context.print(`\n${totalsText(totals)}`);
  if (items.length > wanted) {
    await context.note(context.paintErr.dim("\nThere are more files; --limit 0 lists all."));
  }
}

function totalsText(totals: CoverageTotals): string {
  return [
    { noun: "line", covered: totals.linesCovered, total: totals.linesTotal, plural: "lines" },
    { noun: "branch", covered: totals.branchesCovered, total: totals.branchesTotal, plural: "branches" },
    { noun: "function", covered: totals.functionsCovered, total: totals.functionsTotal, plural: "functions" },
  ]
    .filter(({ total }) => total > 0n)
    .map(
      ({ noun, covered, total, plural }) =>
        `${shareCell(Number(covered), Number(total))} of ${count(Number(total), noun, plural)}`,
    )
    .join(", ");
}
