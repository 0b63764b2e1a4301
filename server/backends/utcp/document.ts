import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { SourceProblem } from "../source.ts";

/** More tools than this in one manual are a mistake of its author, or an attack. */
const MAX_TOOLS = 10_000;
/** Deeper nesting of one entry could exhaust the stack of whatever walks it later. */
const MAX_DEPTH = 64;
/** Printable, at most 256 characters: a name is typed on command lines and shown in tables. */
const TOOL_NAME = /^[^\s\p{C}]{1,256}$/u;

/** An entry of a UTCP manual, its optional parts filled in. */
export interface UtcpTool {
  readonly name: string;
  readonly description: string;
  readonly inputs: JsonValue;
  readonly outputs: JsonValue;
  readonly tags: readonly string[];
  readonly template: JsonObject;
}

export interface UtcpManual {
  readonly version: string;
  /** In the manual's order, their names unique. */
  readonly tools: readonly UtcpTool[];
  /** Why other entries were left out. */
  readonly problems: readonly SourceProblem[];
}

/**
 * Reads a manual of UTCP v1, or of v0.x, whose `tool_provider` became `tool_call_template`. An entry that cannot be
 * listed is left out with a problem; a document that is no manual is a DomainError `MANUAL_INVALID`. Keys that we do
 * not know are ignored.
 */
export function readManual(document: JsonValue): UtcpManual {
  if (!isObject(document)) {
    throw manualInvalid("", "it must be a JSON object");
  }
  if ("openapi" in document || "swagger" in document) {
    throw manualInvalid("openapi", "this is an OpenAPI document, not a UTCP manual");
  }
  const { utcp_version: version, manual_version: manualVersion, tools: entries } = document;
  if (version !== undefined && (typeof version !== "string" || !/^[01](\.|$)/.test(version))) {
    throw manualInvalid("utcp_version", "only versions 0.x and 1.x are understood");
  }
  if (!Array.isArray(entries)) {
    throw manualInvalid("tools", "it must be a list of tools");
  }
  if (entries.length > MAX_TOOLS) {
    throw manualInvalid("tools", `it has ${entries.length} entries, at most ${MAX_TOOLS} are read`);
  }
  const tools = new Map<string, UtcpTool>();
  const problems: SourceProblem[] = [];
  for (const [index, entry] of entries.entries()) {
    const tool = readTool(entry, `tools[${index}]`);
    if ("reason" in tool) {
      problems.push(tool);
    } else if (tools.has(tool.name)) {
      problems.push({
        reason: "DUPLICATE_TOOL",
        message: `tools[${index}].name: "${tool.name}" is already taken by an earlier entry, which is kept`,
        tool: tool.name,
      });
    } else {
      tools.set(tool.name, tool);
    }
  }
  return {
    version: typeof manualVersion === "string" ? manualVersion : "1.0.0",
    tools: [...tools.values()],
    problems,
  };
}

/** The manual in the form of UTCP v1, as it is kept for later calls. */
export function writeManual({ version, tools }: UtcpManual): Uint8Array {
  const manual = {
    utcp_version: "1.0.1",
    manual_version: version,
    tools: tools.map(({ template, ...tool }) => ({ ...tool, tool_call_template: template })),
  };
  return new TextEncoder().encode(JSON.stringify(manual));
}

function readTool(entry: JsonValue, path: string): UtcpTool | SourceProblem {
  if (!isObject(entry)) {
    return { reason: "INVALID_TOOL", message: `${path}: it must be an object` };
  }
  const { name, description, inputs, outputs, tags } = entry;
  if (typeof name !== "string" || !TOOL_NAME.test(name)) {
    return {
      reason: "INVALID_TOOL",
      message: `${path}.name: it must be 1 to 256 printable characters without spaces`,
    };
  }
  if (deeperThan(entry, MAX_DEPTH)) {
    return {
      reason: "INVALID_TOOL",
      message: `${path}: it is nested deeper than ${MAX_DEPTH} levels`,
      tool: name,
    };
  }
  const template = entry["tool_call_template"] ?? entry["tool_provider"];
  if (!isObject(template)) {
    return {
      reason: "INVALID_TOOL",
      message: `${path}.tool_call_template: it must be an object`,
      tool: name,
    };
  }
  const { provider_type: type, ...rest } = template;
  return {
    name,
    description: typeof description === "string" ? description : "",
    inputs: inputs ?? {},
    outputs: outputs ?? {},
    tags: Array.isArray(tags) ? tags.filter((tag) => typeof tag === "string") : [],
    template:
      type === undefined || "call_template_type" in rest ? template : { call_template_type: type, ...rest },
  };
}

/** Walks level by level rather than by recursion, which the nesting that it looks for would break. */
function deeperThan(value: JsonValue, limit: number): boolean {
  let level: JsonValue[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > limit) {
      return true;
    }
    level = level.flatMap((node) => (typeof node === "object" && node !== null ? Object.values(node) : []));
  }
  return false;
}

export function manualInvalid(field: string, message: string, cause?: unknown): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "MANUAL_INVALID",
    message: `The UTCP manual cannot be used: ${field ? `${field}: ` : ""}${message}`,
    metadata: { field },
    cause,
  });
}

export function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
