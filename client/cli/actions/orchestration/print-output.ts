import type { JsonValue } from "@bufbuild/protobuf";
import { type Run, RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { NodeToolplane } from "../../../node.ts";
import type { OutputFormat } from "../../commands/follow-options.ts";
import type { Context } from "../../context.ts";
import { formatJson } from "../../output/json.ts";
import { answerText, outputJson } from "../../run-view/outcome.ts";
import { cleanText } from "../../run-view/tree-lines.ts";

/** Prints what a run that has ended gave back. */
export async function printOutput(
  context: Context,
  toolplane: NodeToolplane,
  run: Run,
  format: OutputFormat,
): Promise<void> {
  if (format === "none") return;
  // What is large is left out of events.
  const isLeftOut = run.output === undefined && run.state === RunState.SUCCEEDED;
  const whole = isLeftOut
    ? (await toolplane.orchestration.getRun({ runId: run.id }, { signal: context.io.signal })).run
    : run;
  const output = outputJson(whole?.output);
  if (format === "json") return await context.printJson(output);
  if (output === null) return;
  await context.print();
  await printValue(context, output);
}

/** For people: a model's answer as it is, anything else as JSON that is easy to read. */
export async function printValue(context: Context, value: JsonValue): Promise<void> {
  const text = typeof value === "string" ? value : answerText(value);
  await context.print(
    text === undefined ? formatJson(value, { indent: true, paint: context.paint }) : cleanText(text),
  );
}
