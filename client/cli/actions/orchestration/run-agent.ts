import type { RunAgentOptions } from "../../commands/agent.ts";
import type { Context } from "../../context.ts";
import { parseCount } from "../../input/choices.ts";
import { readText } from "../../input/read.ts";
import { UsageError } from "../../usage-error.ts";
import { startRun } from "./start.ts";

/** The most tasks of a run, as the contract has it. */
const MAX_TASKS = 1_000;

export async function runAgent(
  context: Context,
  agent: string,
  tasks: readonly string[],
  options: RunAgentOptions,
): Promise<number | undefined> {
  const version = parseCount(options.version, "--version") ?? 0;
  const maxConcurrency = parseCount(options.concurrency, "--concurrency") ?? 0;
  const all = [...tasks, ...(await readTasks(context, options.tasks))];
  if (all.length === 0) {
    throw new UsageError("There is no task", `Write one: toolplane agent run ${agent} "what is to be done"`);
  }
  if (all.length > MAX_TASKS) {
    throw new UsageError(`There are ${all.length} tasks; a run takes at most ${MAX_TASKS}`);
  }
  const value = { tasks: all.map((task) => ({ agent, version, task })), maxConcurrency };
  return await startRun(context, { kind: { case: "agentTasks", value } }, options);
}

/** The tasks of a file, one a line. */
async function readTasks({ io }: Context, file: string | undefined): Promise<string[]> {
  if (file === undefined) return [];
  const text = await readText(file.startsWith("@") ? file.slice(1) : file, io);
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}
