import { randomUUID } from "node:crypto";
import { TestRunEndReason, TestRunSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { NodeToolplane } from "../../../node.ts";
import { describeOutcome } from "../../../reporting/outcome.ts";
import { createSpoolSource } from "../../../reporting/spool-source.ts";
import { type CommandEnd, createUploader } from "../../../reporting/uploader.ts";
import type { Context } from "../../context.ts";
import { ExitCode } from "../../exit-code.ts";
import { oneLine } from "../../output/text-width.ts";
import { renderSummary } from "../../test-view/summary.ts";
import { openReport, removeReport } from "./kept-report.ts";

/** Of a command that nobody saw end. */
const LOST: CommandEnd = {
  reason: TestRunEndReason.CRASHED,
  message: "the command that reported the tests was ended before them",
};

/** How long events may take to reach the server, in milliseconds: there may be many of them. */
const UPLOAD_TIMEOUT_MS = 10 * 60_000;

export async function uploadReport(context: Context, folder: string): Promise<number> {
  const report = await openReport(folder);
  const toolplane = await context.connect();
  const requestId = await openRequestId(context, toolplane, report.run);
  const uploader = createUploader({
    client: toolplane.tests,
    run: { ...report.run, requestId },
    source: createSpoolSource(report.eventsFile),
  });
  const outcome = await uploader.finish(report.end ?? LOST, context.timeoutMs ?? UPLOAD_TIMEOUT_MS);
  if (outcome.kind !== "finished") {
    await context.note(context.paintErr.yellow(`▲ ${oneLine(describeOutcome(outcome))}`));
    return outcome.kind === "unreachable" ? ExitCode.unavailable : ExitCode.failure;
  }
  await removeReport(report);
  if (context.json) await context.printMessage(TestRunSchema, outcome.run);
  else await context.print(renderSummary(context, outcome.run).join("\n"));
  return ExitCode.ok;
}

/** The id of the request that made the run, unless that run was given up meanwhile: then a new one. */
async function openRequestId(
  { io }: Context,
  { tests }: NodeToolplane,
  run: { readonly requestId: string },
): Promise<string> {
  const { run: known } = await tests.createTestRun(run, { signal: io.signal });
  const isGivenUp =
    known?.end?.reason === TestRunEndReason.SILENT || known?.end?.reason === TestRunEndReason.SERVER_LOST;
  return isGivenUp ? randomUUID() : run.requestId;
}
