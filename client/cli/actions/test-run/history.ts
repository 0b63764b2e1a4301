import { GetTestHistoryResponseSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { TestHistoryOptions } from "../../commands/test.ts";
import type { Context } from "../../context.ts";
import { renderProjectHistory, renderTestHistory } from "../../test-view/history.ts";
import { UsageError } from "../../usage-error.ts";

/** The most runs that the server looks at. */
const MAX_RUNS = 1000;

export async function showHistory(
  context: Context,
  project: string,
  test: string | undefined,
  options: TestHistoryOptions,
): Promise<undefined> {
  const maxRuns = parseRuns(options.runs);
  const { tests } = await context.connect();
  const response = await tests.getTestHistory(
    { project, test: test ?? "", environment: options.env ?? "", branch: options.branch ?? "", maxRuns },
    { signal: context.io.signal },
  );
  if (context.json) return void (await context.printMessage(GetTestHistoryResponseSchema, response));
  switch (response.history.case) {
    case "test":
      return void (await context.print(renderTestHistory(context, response.history.value)));
    case "project":
      return void (await context.print(renderProjectHistory(context, response.history.value)));
    case undefined:
      return void (await context.note("There is no history yet."));
  }
}

function parseRuns(text: string): number {
  const runs = Number(text);
  if (!Number.isInteger(runs) || runs < 1 || runs > MAX_RUNS) {
    throw new UsageError(`--runs: "${text}" is not a number from 1 to ${MAX_RUNS}`);
  }
  return runs;
}
