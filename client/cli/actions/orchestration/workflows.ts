import { create } from "@bufbuild/protobuf";
import {
  DeleteWorkflowResponseSchema,
  GetWorkflowResponseSchema,
  ListWorkflowsResponseSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { graphToLines } from "../../../orchestration/index.ts";
import type { ShowWorkflowOptions } from "../../commands/workflow.ts";
import type { Context } from "../../context.ts";
import { parseCount } from "../../input/choices.ts";
import { parseLimit } from "../../input/limit.ts";
import { type Cell, renderColumns } from "../../output/columns.ts";
import { renderFacts, section } from "../../output/facts.ts";
import { firstSentence, formatAge, formatDuration } from "../../output/format.ts";
import { formatMinute } from "../../output/keys.ts";
import { renderSchema } from "../../output/schema.ts";
import { oneLine, printable, proseWidth, wrap } from "../../output/text-width.ts";
import { exampleRun } from "../../schema/example-call.ts";
import { UsageError } from "../../usage-error.ts";
import { readPages } from "../pages.ts";
import { scheduleLines } from "./put-workflow.ts";

/** Lists the newest version of each workflow, or the versions of one. */
export async function listWorkflows(
  context: Context,
  { name = "", limit }: { readonly name?: string; readonly limit: string },
): Promise<undefined> {
  const wanted = parseLimit(limit);
  const { orchestration } = await context.connect();
  const { signal } = context.io;
  // One more than is shown tells whether there are more.
  const { items } = await readPages(wanted + 1, async (pageSize, pageToken) => {
    const page = await orchestration.listWorkflows({ name, pageSize, pageToken }, { signal });
    return { items: page.workflows, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
  const workflows = items.slice(0, wanted);
  if (context.json) {
    const response = create(ListWorkflowsResponseSchema, { workflows });
    return void (await context.printMessage(ListWorkflowsResponseSchema, response));
  }
  if (workflows.length === 0) {
    return void (await context.note(
      name === ""
        ? "No workflow is kept. Keep one: toolplane workflow put <file>"
        : `There is no workflow ${oneLine(name)}.`,
    ));
  }
  const { paint, io } = context;
  const rows = workflows.map((workflow): Cell[] => [
    { text: workflow.name, style: paint.bold },
    `v${workflow.version}`,
    nextStart(context, workflow.schedules),
    formatAge(workflow.createTime, io.now()),
    workflow.createdBy,
    firstSentence(workflow.description),
  ]);
  await context.print(
    renderColumns(
      [
        { title: "WORKFLOW", minWidth: 8 },
        { title: "VERSION" },
        { title: "NEXT START" },
        { title: "KEPT", optional: true },
        { title: "BY", minWidth: 6, optional: true },
        { title: "WHAT IT DOES", minWidth: 16 },
      ],
      rows,
      context.columns(),
    ),
  );
  if (items.length > wanted) {
    await context.note(context.paintErr.dim("\nThere are more; --limit 0 lists all."));
  }
}

function nextStart(
  { paint }: Context,
  schedules: readonly { readonly paused: boolean; readonly nextTime?: Parameters<typeof formatMinute>[0] }[],
): Cell {
  const times = schedules.filter(({ paused }) => !paused).flatMap(({ nextTime }) => nextTime ?? []);
  const [first] = times.sort((a, b) => Number(a.seconds - b.seconds));
  if (first !== undefined) return formatMinute(first);
  return schedules.length === 0 ? "" : { text: "paused", style: paint.dim };
}

export async function showWorkflow(
  context: Context,
  name: string,
  options: ShowWorkflowOptions,
): Promise<undefined> {
  const version = parseCount(options.version, "--version") ?? 0;
  const { orchestration } = await context.connect();
  const response = await orchestration.getWorkflow({ name, version }, { signal: context.io.signal });
  if (options.yaml === true) return void (await context.print(printable(response.yaml.trimEnd())));
  if (context.json) return void (await context.printMessage(GetWorkflowResponseSchema, response));
  const { workflow, graph } = response;
  if (workflow === undefined) throw new UsageError(`The server did not describe workflow ${name}`);
  const { paint, io } = context;
  const lines = graph === undefined ? [] : graphToLines(graph);
  const steps = renderColumns(
    [
      { title: "STEP", minWidth: 12 },
      { title: "WHAT IT DOES", minWidth: 12 },
      { title: "WHEN" },
      { title: "AFTER", minWidth: 8 },
    ],
    // A no-break space keeps the indent, which cells would lose.
    lines.map(({ indent, stepId, work, marks, after }) => [
      { text: `${"· ".repeat(indent.length / 2)}${stepId}`, style: paint.bold },
      work,
      marks,
      { text: after.join(", "), style: paint.dim },
    ]),
    context.columns("  "),
  );
  const description = printable(workflow.description.trim());
  const schedules = scheduleLines(context, workflow).map((line) => `  ${line}`);
  await context.print(
    [
      `${paint.bold(oneLine(workflow.name))} v${workflow.version}`,
      ...(description === "" ? [] : wrap(description, proseWidth(context)).map((line) => `  ${line}`)),
      "",
      renderFacts(paint, [
        ["At once", workflow.maxConcurrency === 0 ? "" : workflow.maxConcurrency.toLocaleString("en")],
        ["Timeout", formatDuration(workflow.timeout)],
        [
          "Labels",
          Object.entries(workflow.labels)
            .map(([key, value]) => `${key}=${value}`)
            .join(" "),
        ],
        ["Kept", formatAge(workflow.createTime, io.now())],
        ["By", workflow.createdBy],
        ["Etag", workflow.etag],
      ]),
      ...(schedules.length === 0 ? [] : section(paint, "Schedules", schedules.join("\n"))),
      ...(lines.length === 0 ? [] : section(paint, "Steps", steps)),
      ...(workflow.inputSchema === undefined
        ? []
        : section(paint, "Input", renderSchema(context, workflow.inputSchema, true))),
      "",
      paint.dim(`Run it: ${oneLine(exampleRun(workflow.name, workflow.inputSchema))}`),
    ].join("\n"),
  );
}

export async function deleteWorkflow(context: Context, name: string): Promise<undefined> {
  const { orchestration } = await context.connect();
  const response = await orchestration.deleteWorkflow({ name }, { signal: context.io.signal });
  if (context.json) return void (await context.printMessage(DeleteWorkflowResponseSchema, response));
  const { paint } = context;
  await context.print(`${paint.green("✓")} Forgot ${paint.bold(oneLine(name))}`);
}
