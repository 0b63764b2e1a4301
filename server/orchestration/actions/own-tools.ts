import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { OWN_SERVICE } from "../../registry/registry.ts";
import type { ToolCalling } from "./action.ts";

/** Calls the tools that this server has itself, and not those of a newer one beside it, which would ask who is calling. */
export interface OwnTools {
  /**
   * @param name without that of the service
   * @param context its key may be empty for what only reads
   */
  call(
    name: string,
    args: JsonObject,
    context: Parameters<ToolCalling["call"]>[1],
    timeoutMs?: number,
  ): Promise<JsonObject>;
}

/** @param version of this server */
export function createOwnTools(toolCalling: ToolCalling, version: string): OwnTools {
  return {
    call: async (name, args, context, timeoutMs) =>
      objectOf(
        await toolCalling.call(
          {
            tool: `${OWN_SERVICE}.${name}`,
            environment: "",
            version,
            arguments: args,
            whole: true,
            timeoutMs,
          },
          context,
        ),
      ),
  };
}

/** The object that JSON is; an empty one for anything else. */
export function objectOf(json: JsonValue | undefined): JsonObject {
  return typeof json === "object" && json !== null && !Array.isArray(json) ? json : {};
}
