import { TestRunSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { RunChoiceOptions } from "../../commands/test.ts";
import type { Context } from "../../context.ts";
import { findRun } from "../../input/run-name.ts";
import { renderSummary } from "../../test-view/summary.ts";

export async function cancelTests(
  context: Context,
  name: string,
  { project, message = "" }: RunChoiceOptions & { readonly message?: string },
): Promise<undefined> {
  const { tests } = await context.connect();
  const { signal } = context.io;
  const runId = await findRun(tests, name, { project, signal });
  const { run } = await tests.cancelTestRun({ runId, message }, { signal });
  if (run === undefined) return;
  if (context.json) await context.printMessage(TestRunSchema, run);
  else await context.print(renderSummary(context, run).join("\n"));
}
