import type { JsonObject } from "@bufbuild/protobuf";
import { GetToolResponseSchema } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { Idempotency, type Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { ShowToolOptions } from "../commands/tools.ts";
import type { Context } from "../context.ts";
import { renderColumns } from "../output/columns.ts";
import { renderFacts, section } from "../output/facts.ts";
import { formatDuration } from "../output/format.ts";
import { answersWithStream, streamingName, takesStream, toolKindName } from "../output/states.ts";
import { oneLine, printable, proseWidth, wrap } from "../output/text-width.ts";
import { exampleCall } from "../schema/example-call.ts";
import { schemaRows, wholeValue } from "../schema/schema-rows.ts";

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

function renderSchema(context: Context, schema: JsonObject | undefined, isInput: boolean): string {
  const { paint } = context;
  const rows = schemaRows(schema ?? {});
  if (rows.length === 0) return renderWhole(context, schema) ?? paint.dim(isInput ? "  none" : "  empty");
  return renderColumns(
    [
      { title: "NAME" },
      { title: "TYPE", minWidth: 14 },
      { title: isInput ? "REQUIRED" : "" },
      { title: "DESCRIPTION", minWidth: 24, wraps: true },
    ],
    rows.map(({ path, type, need, description }) => [
      { text: path, style: paint.bold },
      { text: type, style: paint.cyan },
      isInput ? need : "",
      description,
    ]),
    context.columns("  "),
  );
}

/** A message that is no object with fields: it is a value itself, such as a time or any JSON. */
function renderWhole(context: Context, schema: JsonObject | undefined): string | undefined {
  const { paint } = context;
  const value = schema === undefined ? undefined : wholeValue(schema);
  if (value === undefined) return undefined;
  return renderColumns(
    [{ title: "TYPE" }, { title: "DESCRIPTION", minWidth: 24, wraps: true }],
    [[{ text: value.type, style: paint.cyan }, value.description]],
    context.columns("  "),
  );
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
