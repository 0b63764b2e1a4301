import type { RunWorkflowOptions } from "../../commands/workflow.ts";
import type { Context } from "../../context.ts";
import { ExitCode } from "../../exit-code.ts";
import { readArguments } from "../../input/arguments.ts";
import { parseCount } from "../../input/choices.ts";
import { chooseWorkflow } from "../../input/workflow.ts";
import { renderProblems } from "../../run-view/problems.ts";
import { UsageError } from "../../usage-error.ts";
import { check, verdict } from "./put-workflow.ts";
import { startRun } from "./start.ts";

export async function runWorkflow(
  context: Context,
  word: string,
  words: readonly string[],
  options: RunWorkflowOptions,
): Promise<number | undefined> {
  const version = parseCount(options.version, "--version") ?? 0;
  const pairs = [...words, ...(options.input ?? [])];
  if (word === "-" && pairs.includes("-"))
    throw new UsageError("Stdin cannot hold the workflow and its input");
  const choice = await chooseWorkflow(word, context.io);
  const toolplane = await context.connect();
  const { signal } = context.io;
  if (choice.kind === "kept") {
    const { workflow } = await toolplane.orchestration.getWorkflow(
      { name: choice.name, version },
      { signal },
    );
    const input = await readArguments(pairs, workflow?.inputSchema ?? {}, context.io);
    const value = { workflow: { case: "name", value: choice.name } as const, version, input };
    return await startRun(context, { kind: { case: "workflow", value } }, options);
  }
  if (version !== 0) throw new UsageError("--version is for workflows that are kept, not for files");
  const checked = await check(context, toolplane, choice.text);
  if (!checked.valid) {
    for (const line of renderProblems(context.paintErr, choice.path, checked.problems))
      await context.note(line);
    await context.note(verdict(context, choice.path, checked));
    return ExitCode.invalidArguments;
  }
  const input = await readArguments(pairs, checked.workflow?.inputSchema ?? {}, context.io);
  const value = { workflow: { case: "text", value: choice.text } as const, input };
  return await startRun(context, { kind: { case: "workflow", value } }, options);
}
