import type { ToolCalling, Work } from "./action.ts";

/** Calls the tool of a step. */
export function createToolWork(toolCalling: ToolCalling): Work<"tool"> {
  return async ({ tool, environment, version }, input, context) => ({
    output: await toolCalling.call(
      {
        tool,
        environment,
        version,
        arguments: input["arguments"] ?? {},
        whole: true,
        timeoutMs: context.timeoutMs,
      },
      context,
    ),
  });
}
