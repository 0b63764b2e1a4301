import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { type ToolCall, ToolCallSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { toDuration } from "../../../tool-calls.ts";
import type { BatchOptions } from "../../commands/orchestration-runs.ts";
import type { Context } from "../../context.ts";
import { parseCount } from "../../input/choices.ts";
import { parseDuration } from "../../input/duration.ts";
import { parseJson } from "../../input/json-text.ts";
import { readText } from "../../input/read.ts";
import { UsageError } from "../../usage-error.ts";
import { startRun } from "./start.ts";

/** The most calls of a batch, as the contract has it. */
const MAX_CALLS = 1_000;

export async function runBatch(
  context: Context,
  file: string,
  options: BatchOptions,
): Promise<number | undefined> {
  const attempts = parseCount(options.attempts, "--attempts");
  const maxConcurrency = parseCount(options.concurrency, "--concurrency") ?? 0;
  const timeoutMs =
    options.callTimeout === undefined ? undefined : parseDuration(options.callTimeout, "--call-timeout");
  const calls = parseCalls(await readText(file, context.io), file === "-" ? "stdin" : file);
  const value = {
    calls,
    maxConcurrency,
    ...(timeoutMs !== undefined && { timeout: toDuration(timeoutMs) }),
    ...(attempts !== undefined && { retry: { attempts } }),
  };
  return await startRun(context, { kind: { case: "toolBatch", value } }, options);
}

/** A list of calls, or one call a line. */
function parseCalls(text: string, name: string): ToolCall[] {
  if (/^\s*\[/.test(text)) {
    const list = parseJson(text, name);
    return toCalls(
      (Array.isArray(list) ? list : []).map((value, index) => ({
        value,
        name: `Call ${index + 1} of ${name}`,
      })),
      name,
    );
  }
  const lines = text.split("\n").map((line, index) => ({ line, name: `Line ${index + 1} of ${name}` }));
  return toCalls(
    lines
      .filter(({ line }) => line.trim() !== "")
      .map(({ line, name: place }) => ({ value: parseJson(line, place), name: place })),
    name,
  );
}

function toCalls(values: readonly { value: JsonValue; name: string }[], name: string): ToolCall[] {
  if (values.length === 0) throw new UsageError(`${name} holds no calls`);
  if (values.length > MAX_CALLS) {
    throw new UsageError(`${name} holds ${values.length} calls; a batch takes at most ${MAX_CALLS}`);
  }
  return values.map(({ value, name: place }) => {
    try {
      return fromJson(ToolCallSchema, value);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new UsageError(
        `${place} is no call: ${why}`,
        'Write it as {"tool": "weather.GetForecast", "arguments": {"city": "Berlin"}}.',
      );
    }
  });
}
