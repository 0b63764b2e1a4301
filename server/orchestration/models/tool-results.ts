import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { isShallow } from "../../schema/json.ts";
import type { StepEnd } from "../engine/step.ts";
import type { ModelMessage, WantedCall } from "./model.ts";

/** The most that a model gets to see of one result, in characters. The rest is in nobody's interest. */
export const MAX_RESULT_CHARACTERS = 64 * 1024;
const MAX_ERROR_CHARACTERS = 4_096;
/** Deeper values cannot be recorded as a google.protobuf.Value. */
export const MAX_DEPTH = 40;

/**
 * A result as it is recorded and shown to the model: itself where it is small enough, else its beginning as text. A model
 * pays for each character, again with each turn, and so does the memory of a worker.
 */
export function boundResult(result: JsonValue): JsonValue {
  const text = JSON.stringify(result);
  if (text.length <= MAX_RESULT_CHARACTERS && isShallow(result, MAX_DEPTH)) {
    return result;
  }
  const isCut = text.length > MAX_RESULT_CHARACTERS;
  const note = isCut
    ? `The result has ${text.length} characters of JSON, of which these are the first ${MAX_RESULT_CHARACTERS}. ` +
      "Ask for less to see all."
    : "The result nests deep, so it is given as text.";
  return { [TRUNCATED]: { note, json: cutText(text, MAX_RESULT_CHARACTERS) } };
}

const TRUNCATED = "toolplane_cut_result";

/** What a model is sent back for the calls of a turn, in their order. */
export function toolMessage(answers: readonly ToolAnswer[]): ModelMessage {
  return {
    role: "tool",
    content: answers.map(({ call, body, isError }) => ({
      type: "tool-result",
      toolCallId: call.id,
      toolName: call.name,
      output: { type: isError ? "error-text" : "text", value: body },
    })),
  };
}

export interface ToolAnswer {
  readonly call: WantedCall;
  /** JSON: nothing in it can pass for anything but data. */
  readonly body: string;
  readonly isError: boolean;
}

/** What a model is told about a call. `note` is ours; what the tool says is within `result` or `error`. */
export function answerOf(call: WantedCall, tool: string, end: StepEnd, note?: string): ToolAnswer {
  const notes = note === undefined ? {} : { note };
  switch (end.state) {
    case "succeeded":
      return { call, isError: false, body: JSON.stringify({ tool, ...notes, ...shown(end.output) }) };
    case "failed": {
      const { code, message } = end.error;
      const error = { code: codeName(code), message: cutText(message, MAX_ERROR_CHARACTERS) };
      return { call, isError: true, body: JSON.stringify({ tool, ...notes, error }) };
    }
    case "skipped":
    case "cancelled":
      return refusal(call, tool, { code: "canceled", message: "the call was not made" });
  }
}

/** What a model is told about a call that was not even looked at. */
export function refusal(
  call: WantedCall,
  tool: string,
  error: { code: string; message: string },
): ToolAnswer {
  return { call, isError: true, body: JSON.stringify({ tool, error }) };
}

function shown(output: JsonValue): JsonObject {
  const cut = typeof output === "object" && output !== null && !Array.isArray(output) && output[TRUNCATED];
  return cut ? { result: cut, truncated: true } : { result: output };
}

function codeName(code: number): string {
  return Code[code] === undefined ? "unknown" : codeToString(code);
}

/** The beginning of a text, without half a character at its end. */
function cutText(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length).toWellFormed()}…` : text;
}
