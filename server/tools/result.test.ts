import { create, fromBinary, type JsonValue, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { CallToolsResponseSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { expect, test } from "vitest";
import type { Output } from "../backends/invocation.ts";
import { createResultList, toResult } from "./result.ts";

const output = (json: JsonValue): Output => ({
  json: () => json,
  bytes: () => Buffer.from(JSON.stringify(json)),
});

function nested(depth: number, wrap: (inner: JsonValue) => JsonValue): JsonValue {
  let json: JsonValue = true;
  for (let level = 0; level < depth; level++) {
    json = wrap(json);
  }
  return json;
}

test.each<[string, (inner: JsonValue) => JsonValue]>([
  ["lists", (inner) => [inner]],
  ["objects", (inner) => ({ a: inner })],
])("%s are passed on as deep as every client can read them, and refused beyond", (_, wrap) => {
  const result = toResult(output(nested(45, wrap)), false, 1_000_000);
  const response = create(CallToolsResponseSchema, { outcome: { case: "response", value: { result } } });
  const bytes = toBinary(CallToolsResponseSchema, response);
  expect(fromBinary(CallToolsResponseSchema, bytes)).toMatchObject({ outcome: { case: "response" } });

  for (const depth of [46, 100_000]) {
    expect(() => toResult(output(nested(depth, wrap)), false, 1_000_000)).toThrow(
      expect.objectContaining({
        init: expect.objectContaining({ code: Code.Internal, reason: "INVALID_RESULT" }),
      }),
    );
  }
});

const tooLarge = expect.objectContaining({
  init: expect.objectContaining({ code: Code.ResourceExhausted, reason: "RESULT_TOO_LARGE" }),
});

test.each<[string, JsonValue]>([
  ["a text", "x".repeat(1_001)],
  ["a list of numbers", Array.from({ length: 100 }, (_, index) => index)],
  ["an object with long names", { ["x".repeat(1_001)]: null }],
  ["a list of lists", Array.from({ length: 300 }, () => [])],
])("%s that is too large once it is a message is refused", (_, json) => {
  expect(() => toResult(output(json), false, 1_000)).toThrow(tooLarge);
});

test("results of a stream are too many when together they are too large, however small each is", () => {
  const list = createResultList("json", 1_000);
  const add = () => list.add(output(true));
  for (let index = 0; index < 15; index++) {
    add();
  }
  expect(() => {
    add();
    add();
  }).toThrow(/larger than 1000 bytes: call it with CallToolStream/);
});

test("a result that JSON has no word for is refused", () => {
  expect(() => toResult(output(Number.POSITIVE_INFINITY), false, 1_000)).toThrow(
    expect.objectContaining({ init: expect.objectContaining({ reason: "INVALID_RESULT" }) }),
  );
});
