import { randomUUID } from "node:crypto";
import type { JsonValue } from "@bufbuild/protobuf";
import { toJson } from "@bufbuild/protobuf";
import type { Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { type CallInfo, CallInfoSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { resultToJson, toCallOptions, toToolCall } from "../../tool-calls.ts";
import type { CallOptions } from "../commands/call.ts";
import type { Context } from "../context.ts";
import { readArgumentStream, readArguments } from "../input/arguments.ts";
import { count, formatDuration } from "../output/format.ts";
import { formatJson } from "../output/json.ts";
import { answersWithStream, takesStream } from "../output/states.ts";
import { UsageError } from "../usage-error.ts";

export async function call(
  context: Context,
  name: string,
  words: readonly string[],
  options: CallOptions,
): Promise<undefined> {
  const { registry, tools } = await context.connect();
  const { io } = context;
  const where = { environment: options.environment ?? "", version: options.version ?? "" };
  // The tool's schema says how pairs become JSON, and how its messages flow says what to read and how to print.
  const { tool } = await registry.getTool({ name, ...where }, { signal: io.signal });
  if (tool === undefined) throw new UsageError(`The server did not describe ${name}`);
  const schema = tool.inputSchema ?? {};
  const args = takesStream(tool.streaming)
    ? await readArgumentStream(words, schema, io)
    : await readArguments(words, schema, io);
  const callOptions = {
    ...options,
    requestId: options.requestId === true ? randomUUID() : options.requestId,
    timeoutMs: context.timeoutMs,
    signal: io.signal,
  };
  const events = tools.callToolStream(
    { call: toToolCall(tool.name, args, callOptions) },
    toCallOptions(callOptions),
  );
  const streams = answersWithStream(tool.streaming);
  let single: JsonValue = null;
  for await (const { event } of events) {
    switch (event.case) {
      case "result":
        single = resultToJson(event.value);
        // One document holds the result of a tool that answers once, and how the call went.
        if (streams || !context.json || options.raw === true)
          await printResult(context, options, streams, single);
        break;
      case "finished":
        await printEnd(context, tool, options, event.value, streams ? undefined : single);
        break;
      case "started":
      case undefined:
        break;
    }
  }
}

async function printResult(
  context: Context,
  options: CallOptions,
  streams: boolean,
  result: JsonValue,
): Promise<void> {
  if (options.raw === true) {
    await context.print(typeof result === "string" ? result : formatJson(result));
  } else if (context.json) {
    await context.print(formatJson({ result }));
  } else {
    const isTerminal = context.io.stdout.isTTY === true;
    await context.print(formatJson(result, { indent: isTerminal && !streams, paint: context.paint }));
  }
}

async function printEnd(
  context: Context,
  tool: Tool,
  options: CallOptions,
  info: CallInfo,
  result: JsonValue | undefined,
): Promise<void> {
  const { paintErr, io } = context;
  if (options.raw === true) return;
  if (context.json) {
    const end = { info: toJson(CallInfoSchema, info, { alwaysEmitImplicit: true }) };
    return await (result === undefined
      ? context.print(formatJson(end))
      : context.printJson({ result, ...end }));
  }
  if (io.stderr.isTTY !== true) return;
  const results = result === undefined ? `${count(info.resultCount, "result")} ` : "";
  await context.note(
    paintErr.dim(
      `${paintErr.green("✓")} ${results}from ${tool.service} ${tool.version} in ${formatDuration(info.duration)}`,
    ),
  );
}
