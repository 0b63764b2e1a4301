import { create, fromJson, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { DomainError, invalidArgument } from "@toolplane/framework";
import type { ToolResultSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { Output } from "./invocation.ts";

type ToolResultInit = MessageInitShape<typeof ToolResultSchema>;

/** One result in the form that the caller asked for: as Protobuf when the request was, else as JSON. */
export function toResult(output: Output, typed: boolean): ToolResultInit {
  const message = typed ? output.message?.() : undefined;
  return message
    ? { value: { case: "message", value: message } }
    : { value: { case: "json", value: toValue(output) } };
}

/** Gathers the results of a call that is answered with one message. */
export interface ResultList {
  /** Throws RESOURCE_EXHAUSTED when the results have grown too large to be sent as one. */
  add(output: Output): void;
  /** The one result, or the list of results of a tool that streams. */
  finish(streams: boolean): ToolResultInit;
}

export function createResultList(typed: boolean, maxBytes: number): ResultList {
  const outputs: Output[] = [];
  const values: Value[] = [];
  let bytes = 0;
  return {
    add(output) {
      if (typed) {
        outputs.push(output);
        return;
      }
      const value = toValue(output);
      values.push(value);
      bytes += toBinary(ValueSchema, value).byteLength;
      if (bytes > maxBytes) {
        throw new DomainError({
          code: Code.ResourceExhausted,
          reason: "RESULT_TOO_LARGE",
          message: `The tool's results are larger than ${maxBytes} bytes: call it with CallToolStream`,
          metadata: { max_bytes: String(maxBytes) },
        });
      }
    },
    finish(streams) {
      if (streams) {
        const list = create(ValueSchema, { kind: { case: "listValue", value: { values } } });
        return { value: { case: "json", value: list } };
      }
      const [output] = outputs;
      const [value] = values;
      if (output) {
        return toResult(output, true);
      }
      return value ? { value: { case: "json", value } } : {};
    },
  };
}

/** Refuses a call whose results cannot be put into one message. */
export function refuseTypedStream(typed: boolean, streams: boolean, path: string): void {
  if (typed && streams) {
    throw invalidArgument([
      {
        field: `${path}.message`,
        description: "this tool answers with a stream of messages: call it with CallToolStream",
        reason: "STREAMING_TOOL",
      },
    ]);
  }
}

function toValue(output: Output): Value {
  return fromJson(ValueSchema, output.json());
}
