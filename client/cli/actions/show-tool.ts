import { GetToolResponseSchema } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { Idempotency, type Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { ShowToolOptions } from "../commands/tools.ts";
import type { Context } from "../context.ts";
import { renderFacts, section } from "../output/facts.ts";
import { formatDuration } from "../output/format.ts";
import { renderSchema } from "../output/schema.ts";
import { answersWithStream, streamingName, takesStream, toolKindName } from "../output/states.ts";
import { oneLine, printable, proseWidth, wrap } from "../output/text-width.ts";
import { exampleCall } from "../schema/example-call.ts";

export async function showTool(context: Context, name: string, options: ShowToolOptions): Promise<undefined> {
  const { registry } = await context.connect();
  const response = await registry.getTool(
    { name, environment: options.environment ?? "", version: options.version ?? "" },
    { signal: context.io.signal },
  );
  const { tool } = response;
  if (tool !== undefined && options.schema === true) {
    return void (await context.printJson({ input: tool.inputSchema ?? {}, output: tool.outputSchema ?? {} }));
  }
  if (context.json || tool === undefined) {
    return void (await context.printMessage(GetToolResponseSchema, response));
  }
  await context.print(renderTool(context, tool));
}

function renderTool(context: Context, tool: Tool): string {
  const { paint } = context;
  const title = oneLine(tool.title || tool.alias || tool.name);
  const warning =
    tool.problem === undefined
      ? []
      : [paint.yellow(`  ▲ cannot be called: ${oneLine(tool.problem.message)} (${tool.problem.reason})`)];
  const description = printable(tool.description.trim());
  return [
    `${paint.bold(title)}${tool.deprecated ? paint.yellow("  deprecated") : ""}`,
    ...warning,
    ...(description === "" ? [] : wrap(description, proseWidth(context)).map((line) => `  ${line}`)),
    "",
    renderFacts(paint, [
      ["Name", tool.name],
      ["Short name", tool.alias === tool.name ? "" : tool.alias],
      ["Service", `${tool.service} ${tool.version} in ${tool.environment}`],
      ["Kind", `${toolKindName(tool.kind)}, ${streamingName(tool.streaming)}`],
      ["Repeatable", idempotencyText(tool.idempotency)],
      ["Reusable for", formatDuration(tool.cacheTtl)],
      ["Tags", tool.tags.join(", ")],
    ]),
    ...section(
      paint,
      takesStream(tool.streaming) ? "Arguments of each message" : "Arguments",
      renderSchema(context, tool.inputSchema, true),
    ),
    ...section(
      paint,
      answersWithStream(tool.streaming) ? "Each result" : "Result",
      renderSchema(context, tool.outputSchema, false),
    ),
    ...section(paint, "Example", `  ${paint.dim("$")} ${oneLine(exampleCall(tool))}`),
  ].join("\n");
}

function idempotencyText(idempotency: Idempotency): string {
  switch (idempotency) {
    case Idempotency.NO_SIDE_EFFECTS:
      return "yes, it has no side effects";
    case Idempotency.IDEMPOTENT:
      return "yes, twice has the effect of once";
    case Idempotency.UNSPECIFIED:
      return "not known";
  }
}
