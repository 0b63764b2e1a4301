import { toDuration } from "../../../tool-calls.ts";
import type { OrchestrateOptions } from "../../commands/orchestrate.ts";
import type { Context } from "../../context.ts";
import { parseCount } from "../../input/choices.ts";
import { parseDuration } from "../../input/duration.ts";
import { readText } from "../../input/read.ts";
import { UsageError } from "../../usage-error.ts";
import { startRun } from "./start.ts";

export async function orchestrate(
  context: Context,
  words: readonly string[],
  options: OrchestrateOptions,
): Promise<number | undefined> {
  if (!options.tools && (options.tool ?? options.tag) !== undefined) {
    throw new UsageError("--no-tools leaves no tool for --tool and --tag to choose");
  }
  const budget = {
    maxTurns: parseCount(options.maxTurns, "--max-turns") ?? 0,
    maxTokens: BigInt(parseCount(options.maxTokens, "--max-tokens") ?? 0),
    maxCostUsd: parseCost(options.maxCost),
    maxParallelCalls: parseCount(options.maxParallel, "--max-parallel") ?? 0,
    ...(options.maxTime !== undefined && {
      maxTime: toDuration(parseDuration(options.maxTime, "--max-time")),
    }),
  };
  const value = {
    text: await readRequirement(context, words),
    model: options.model ?? "",
    instructions: options.instructions ?? "",
    tools: {
      names: [...(options.tool ?? [])],
      tags: [...(options.tag ?? [])],
      environment: options.environment ?? "",
      none: !options.tools,
    },
    budget,
  };
  return await startRun(context, { kind: { case: "requirement", value } }, options);
}

async function readRequirement({ io }: Context, words: readonly string[]): Promise<string> {
  const [first = "", ...rest] = words;
  const path = first === "-" ? "-" : first.startsWith("@") ? first.slice(1) : undefined;
  const text = path !== undefined && rest.length === 0 ? await readText(path, io) : words.join(" ");
  if (text.trim() === "") throw new UsageError("Nothing is said about what is to be done");
  return text.trim();
}

function parseCost(text: string | undefined): number {
  if (text === undefined) return 0;
  const usd = /^\$?(\d+(?:\.\d+)?|\.\d+)$/.exec(text)?.[1];
  if (usd === undefined || !(Number(usd) > 0)) {
    throw new UsageError(`--max-cost: "${text}" is not a sum in dollars`, "Write it as 0.50.");
  }
  return Number(usd);
}
