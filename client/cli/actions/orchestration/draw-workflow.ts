import { writeFile } from "node:fs/promises";
import type { WorkflowGraph } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import type { Formatter } from "picocolors/types.js";
import { graphToLines, graphToMermaid, graphToSvg } from "../../../orchestration/index.ts";
import type { GraphFormat, WorkflowGraphOptions } from "../../commands/workflow.ts";
import type { Context } from "../../context.ts";
import { ExitCode } from "../../exit-code.ts";
import { parseCount } from "../../input/choices.ts";
import { chooseWorkflow } from "../../input/workflow.ts";
import { oneLine } from "../../output/text-width.ts";
import { renderProblems } from "../../run-view/problems.ts";
import { fitLine } from "../../run-view/tree-lines.ts";
import { UsageError } from "../../usage-error.ts";
import { check, verdict } from "./put-workflow.ts";

export async function drawWorkflow(
  context: Context,
  word: string,
  options: WorkflowGraphOptions,
): Promise<number> {
  const version = parseCount(options.version, "--version") ?? 0;
  const toolplane = await context.connect();
  const choice = await chooseWorkflow(word, context.io);
  let graph: WorkflowGraph | undefined;
  let title = word;
  if (choice.kind === "kept") {
    const response = await toolplane.orchestration.getWorkflow(
      { name: choice.name, version },
      { signal: context.io.signal },
    );
    graph = response.graph;
    title = `${choice.name} v${response.workflow?.version ?? version}`;
  } else {
    const checked = await check(context, toolplane, choice.text);
    // A graph may be known although something else is wrong.
    for (const line of renderProblems(context.paintErr, choice.path, checked.problems))
      await context.note(line);
    if (checked.graph === undefined) {
      await context.note(verdict(context, choice.path, checked));
      return ExitCode.invalidArguments;
    }
    graph = checked.graph;
    title = checked.workflow?.name || word;
  }
  if (graph === undefined) throw new UsageError(`The server did not describe the graph of ${word}`);
  const format = options.format ?? formatOf(options.output);
  const isToFile = options.output !== undefined && options.output !== "-";
  const text = draw(context, graph, title, format, isToFile);
  if (!isToFile) {
    await context.print(text.trimEnd());
    return ExitCode.ok;
  }
  await write(options.output, text);
  await context.note(`${context.paintErr.green("✓")} Wrote ${options.output}`);
  return ExitCode.ok;
}

function draw(
  { paint, io }: Context,
  graph: WorkflowGraph,
  title: string,
  format: GraphFormat,
  isToFile: boolean,
): string {
  switch (format) {
    case "mermaid":
      return graphToMermaid(graph);
    case "svg":
      return graphToSvg(graph, title);
    case "text": {
      const isCut = io.stdout.isTTY === true && !isToFile;
      const width = isCut ? Math.max(20, io.stdout.columns ?? 80) : Number.POSITIVE_INFINITY;
      const plain = (style: Formatter) => (isToFile ? String : style);
      const lines = graphToLines(graph).map(({ indent, stepId, work, marks, after }) =>
        fitLine(
          [
            { text: `${indent}${oneLine(stepId)}`, style: plain(paint.bold) },
            oneLine(work),
            { text: marks, style: plain(paint.cyan) },
            { text: after.length === 0 ? "" : `after ${after.join(", ")}`, style: plain(paint.dim) },
          ],
          width,
        ),
      );
      return `${lines.join("\n")}\n`;
    }
  }
}

function formatOf(output: string | undefined): GraphFormat {
  if (output?.endsWith(".svg") === true) return "svg";
  return output?.endsWith(".mmd") === true ? "mermaid" : "text";
}

async function write(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text);
  } catch (error) {
    throw new UsageError(`Cannot write ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
