import { create, fromJson, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { ToolResultSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { Output } from "../backends/invocation.ts";

type ToolResultInit = MessageInitShape<typeof ToolResultSchema>;

/**
 * How deep lists and objects of a result may be nested. Protobuf has readers go 100 messages deep; each level of a
 * google.protobuf.Value takes two, and what is around the value takes four.
 */
const MAX_DEPTH = 45;
/** What a value takes at least when it is sent, and one of a list of results while the list grows. */
const VALUE_BYTES = 4;
const RESULT_BYTES = 64;

/** One result in the form that the caller asked for: as Protobuf when the request was, else as JSON. */
export function toResult(output: Output, typed: boolean, maxBytes: number): ToolResultInit {
  const message = typed ? output.message?.() : undefined;
  return message
    ? { value: { case: "message", value: message } }
    : { value: { case: "json", value: toValue(output.json(), maxBytes, () => tooLarge(maxBytes)).value } };
}

/** Gathers the results of a call that is answered with one message. */
export interface ResultList {
  /** Throws RESOURCE_EXHAUSTED when the results have grown too large to be sent as one. */
  add(output: Output): void;
  /** The one result, or the list of results of a tool that streams. */
  finish(streams: boolean): ToolResultInit;
}

/**
 * @param form `typed`: Protobuf, where the backend speaks it; `whole`: JSON with fields that have their default value, too
 */
export function createResultList(form: "json" | "whole" | "typed", maxBytes: number): ResultList {
  const outputs: Output[] = [];
  const values: Value[] = [];
  let left = maxBytes;
  return {
    add(output) {
      if (form === "typed") {
        outputs.push(output);
        return;
      }
      const { value, bytes } = toValue(output.json(form === "whole"), left, () =>
        values.length === 0 ? tooLarge(maxBytes) : tooLarge(maxBytes, ": call it with CallToolStream"),
      );
      values.push(value);
      left -= Math.max(bytes, RESULT_BYTES);
    },
    finish(streams) {
      if (streams) {
        const list = create(ValueSchema, { kind: { case: "listValue", value: { values } } });
        return { value: { case: "json", value: list } };
      }
      const [output] = outputs;
      const [value] = values;
      if (output) {
        return toResult(output, true, maxBytes);
      }
      return value ? { value: { case: "json", value } } : {};
    },
  };
}

/** Measures before it converts: a message takes many times the memory of the JSON that it is made from. */
function toValue(
  json: JsonValue,
  maxBytes: number,
  whenTooLarge: () => DomainError,
): { value: Value; bytes: number } {
  const bytes = sizeOf(json, maxBytes, 0);
  if (bytes > maxBytes) {
    throw whenTooLarge();
  }
  return { value: fromJson(ValueSchema, json), bytes };
}

/** About the bytes that a value is sent with; anything above `limit` once that is exceeded. */
function sizeOf(json: JsonValue, limit: number, depth: number): number {
  if (typeof json === "string") {
    return VALUE_BYTES + Buffer.byteLength(json);
  }
  if (typeof json === "number") {
    if (!Number.isFinite(json)) {
      throw unusable(`JSON has no number ${json}`);
    }
    return VALUE_BYTES + 8;
  }
  if (typeof json !== "object" || json === null) {
    return VALUE_BYTES;
  }
  if (depth === MAX_DEPTH) {
    throw unusable(`it is nested more than ${MAX_DEPTH} levels deep`);
  }
  let bytes = VALUE_BYTES;
  if (Array.isArray(json)) {
    for (const item of json) {
      bytes += sizeOf(item, limit - bytes, depth + 1);
      if (bytes > limit) {
        break;
      }
    }
    return bytes;
  }
  for (const [name, item] of Object.entries(json)) {
    bytes += VALUE_BYTES + Buffer.byteLength(name) + sizeOf(item, limit - bytes, depth + 1);
    if (bytes > limit) {
      break;
    }
  }
  return bytes;
}

function tooLarge(maxBytes: number, advice = ""): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "RESULT_TOO_LARGE",
    message: `The tool's results are larger than ${maxBytes} bytes${advice}`,
    metadata: { max_bytes: String(maxBytes) },
  });
}

function unusable(why: string): DomainError {
  return new DomainError({
    code: Code.Internal,
    reason: "INVALID_RESULT",
    message: `The tool's result cannot be passed on: ${why}`,
  });
}
