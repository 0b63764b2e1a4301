import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError, type FieldViolation, invalidArgument } from "@toolplane/framework";
import { SchemaProfile, type Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { codeOf } from "../../error-code.ts";
import { createJsonSchemaCheck, createNameMap } from "../../schema/index.ts";
import { isObject } from "../../schema/json.ts";
import type { Model, OfferedTool, WantedCall } from "./model.ts";
import { checkStartedRun } from "./started-runs.ts";
import { type AllowedTools, inputSchemaOf } from "./tool-choice.ts";

/** The function by which a model finds further tools. */
export const SEARCH_TOOLS = "search_tools";

/** Tools that are offered at once where a model searches; the earliest found make room for new ones. */
const MAX_OFFERED = 64;
/** Of descriptions, in characters. */
const MAX_DESCRIPTION = 2_000;
/** Of what is listed in an error: enough to repair a call from, and no more. */
const MAX_LISTED = 20;
const MAX_NAME = 128;

/** What a wanted call comes to. */
export type CheckedCall =
  | { readonly kind: "search"; readonly query: string }
  | { readonly kind: "tool"; readonly tool: Tool; readonly arguments: JsonObject };

/** The tools that a model is offered now. */
export interface Toolbox {
  readonly searches: boolean;
  /** Tools that have vanished since they were chosen are left out. */
  offered(): readonly OfferedTool[];
  /** Offers tools from now on, by whole names, besides those before. */
  add(names: readonly string[]): void;
  /** The whole name of the tool that a call means; undefined: none that is offered. */
  toolOf(call: WantedCall): string | undefined;
  /** What a call means, for people: as the model wrote it where it means no tool. */
  targetOf(call: WantedCall): string;
  /** Throws what the model can repair a call from; then nothing is to be called. */
  check(call: WantedCall): CheckedCall;
}

export function createToolbox({
  allowed,
  model,
  searches,
}: {
  readonly allowed: AllowedTools;
  readonly model: Pick<Model, "protocol">;
  readonly searches: boolean;
}): Toolbox {
  const profile = model.protocol === "anthropic" ? SchemaProfile.ANTHROPIC : SchemaProfile.OPENAI;
  let names: readonly string[] = [];
  let nameMap = createNameMap([]);
  // As they were first offered: what changes at the beginning of a prompt is paid for in full again.
  const described = new Map<string, OfferedTool>();

  function offer(name: string): OfferedTool[] {
    const known = described.get(name);
    const tool = known === undefined ? allowed.find(name, profile) : undefined;
    const provider = nameMap.toProvider(name);
    if (tool && provider) {
      described.set(name, { name: provider, ...describe(tool), inputSchema: inputSchemaOf(tool) });
    }
    return [described.get(name) ?? []].flat();
  }

  /** Models write a tool's name as it is offered, or sometimes as a text names it. */
  function wholeName({ name }: WantedCall): string | undefined {
    return nameMap.fromProvider(name) ?? (nameMap.toProvider(name) === undefined ? undefined : name);
  }

  function check(call: WantedCall): CheckedCall {
    if (searches && call.name === SEARCH_TOOLS) {
      return { kind: "search", query: queryOf(argumentsOf(call, searchTool.inputSchema)) };
    }
    const name = wholeName(call);
    const tool = name === undefined ? undefined : allowed.find(name);
    if (tool === undefined) {
      throw notOffered(call, name);
    }
    const schema = inputSchemaOf(tool);
    const given = argumentsOf(call, schema);
    checkSchema(tool, schema, given);
    checkStartedRun(tool, given, allowed);
    return { kind: "tool", tool, arguments: given };
  }

  function notOffered(call: WantedCall, vanished: string | undefined): DomainError {
    const name = clip(call.name);
    const listed = names.flatMap((known) => nameMap.toProvider(known) ?? []);
    const more = listed.length > MAX_LISTED ? ` and ${listed.length - MAX_LISTED} more` : "";
    const there =
      listed.length > 0
        ? `The tools that you can call are ${listed.slice(0, MAX_LISTED).join(", ")}${more}.`
        : "There are no tools that you can call.";
    const hint = searches ? ` ${SEARCH_TOOLS} finds further ones.` : "";
    return new DomainError({
      code: vanished === undefined ? Code.PermissionDenied : Code.NotFound,
      reason: vanished === undefined ? "TOOL_NOT_OFFERED" : "TOOL_GONE",
      message:
        vanished === undefined
          ? `"${name}" is none of your tools, so nothing was called. ${there}${hint}`
          : `"${name}" is not registered any more, so nothing was called. ${there}${hint}`,
    });
  }

  return {
    searches,
    check,
    toolOf: wholeName,
    targetOf: (call) => wholeName(call) ?? clip(call.name),
    offered: () => [...names.flatMap(offer), ...(searches ? [searchTool] : [])],
    add(more) {
      // What was found again counts as found last.
      const all = [...names.filter((name) => !more.includes(name)), ...new Set(more)];
      names = searches ? all.slice(-MAX_OFFERED) : all;
      nameMap = createNameMap(names);
    },
  };
}

const searchTool = {
  name: SEARCH_TOOLS,
  description: "Finds further tools. Those that it returns can be called from the next turn on.",
  inputSchema: {
    type: "object",
    properties: { query: { type: "string", description: "A few words for what the tool is to do." } },
    required: ["query"],
    additionalProperties: false,
  },
} as const satisfies OfferedTool;

function queryOf({ query }: JsonObject): string {
  if (typeof query !== "string" || query.trim() === "") {
    throw invalidArgument([
      {
        field: "arguments.query",
        description: "expected a few words for what the tool is to do",
        reason: "REQUIRED",
      },
    ]);
  }
  return query;
}

function describe(tool: Tool): { description: string } {
  const text = tool.description || tool.title;
  const whole = text === "" ? tool.name : `${tool.name}: ${text}`;
  return { description: whole.length > MAX_DESCRIPTION ? `${whole.slice(0, MAX_DESCRIPTION - 1)}…` : whole };
}

/** The arguments as an object. A call without any text is one without arguments. */
function argumentsOf(call: WantedCall, schema: JsonValue): JsonObject {
  const { arguments: given, text } = call;
  if (isObject(given)) {
    return given;
  }
  if (given === undefined && text.trim() === "") {
    return {};
  }
  const wrong = given === undefined ? `no JSON (${syntaxError(text)})` : "no JSON object";
  throw invalidArgument([
    {
      field: "arguments",
      description: `what you wrote is ${wrong}, so nothing was called. Write one JSON object. ${wording(schema)}`,
      reason: "WRONG_TYPE",
    },
  ]);
}

function syntaxError(text: string): string {
  try {
    JSON.parse(text);
    return "it nests too deep, or has a number that is too large";
  } catch (error) {
    return error instanceof Error ? error.message.slice(0, 200) : "it cannot be parsed";
  }
}

function checkSchema(tool: Tool, schema: JsonObject, given: JsonObject): void {
  const violations = violationsOf(schema, given);
  if (violations.length === 0) {
    return;
  }
  const shown = violations.slice(0, MAX_LISTED);
  const more = violations.length > shown.length ? [`${violations.length - shown.length} more mistakes`] : [];
  const found = [...shown.map(({ field, description }) => `${field}: ${description}`), ...more].join("; ");
  throw new DomainError({
    code: Code.InvalidArgument,
    reason: "INVALID_FIELDS",
    message: `${found}. Nothing was called: repair this and call ${tool.name} again. ${wording(schema)}`,
    fields: shown,
  });
}

/** A schema that cannot be used is not checked here: the tool itself refuses what it does not take. */
function violationsOf(schema: JsonObject, given: JsonObject): readonly FieldViolation[] {
  try {
    return createJsonSchemaCheck(schema).check(given, "arguments");
  } catch (error) {
    if (codeOf(error) === Code.FailedPrecondition) {
      return [];
    }
    throw error;
  }
}

/** What arguments there are, in a sentence. */
function wording(schema: JsonValue): string {
  const properties = isObject(schema) && isObject(schema["properties"]) ? schema["properties"] : {};
  const required = isObject(schema) && Array.isArray(schema["required"]) ? schema["required"] : [];
  const names = Object.keys(properties);
  if (names.length === 0) {
    return "It takes no arguments that have names.";
  }
  const shown = names.slice(0, MAX_LISTED).map((name) => {
    const property = properties[name];
    const type = isObject(property) && typeof property["type"] === "string" ? property["type"] : "";
    const notes = [type, ...(required.includes(name) ? ["required"] : [])].filter((note) => note !== "");
    return notes.length > 0 ? `${clip(name)} (${notes.join(", ")})` : clip(name);
  });
  const more = names.length > MAX_LISTED ? ` and ${names.length - MAX_LISTED} more` : "";
  return `Its arguments are ${shown.join(", ")}${more}.`;
}

function clip(name: string): string {
  return name.length > MAX_NAME ? `${name.slice(0, MAX_NAME)}…` : name;
}
