import type { JsonObject } from "@bufbuild/protobuf";
import { createByteLru } from "@toolplane/framework/policies";
import { Idempotency, Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { expect, test } from "vitest";
import type { DiscoveredTool } from "../backends/source.ts";
import { decodeToolSet, encodeToolSet, type ToolSet } from "./tool-set.ts";
import { compareText } from "./version-order.ts";

function tool(name: string, inputSchema: JsonObject = { type: "object" }): DiscoveredTool {
  return {
    name,
    title: `Title of ${name}`,
    description: "",
    tags: ["a"],
    kind: ToolKind.RPC,
    streaming: Streaming.UNARY,
    idempotency: Idempotency.UNSPECIFIED,
    sourceName: name,
    inputSchema,
    outputSchema: {},
    deprecated: false,
  };
}

async function roundTrip(tools: readonly DiscoveredTool[]): Promise<ToolSet> {
  const { digest, bytes } = await encodeToolSet(tools);
  return decodeToolSet(digest, bytes, createByteLru({ maxBytes: 100 }));
}

test("tools survive packing, in order of their names", async () => {
  // More than fill one chunk.
  const tools = Array.from({ length: 200 }, (_, index) =>
    tool(`acme.S.Tool${index}`, { type: "object", properties: { [`argument${index}`]: { type: "string" } } }),
  );
  const set = await roundTrip(tools);
  const sorted = tools.toSorted((left, right) => compareText(left.name, right.name));
  expect(set.tools()).toEqual(sorted);
  expect(set.indexOf("acme.S.Tool150")).toBe(sorted.findIndex(({ name }) => name === "acme.S.Tool150"));
  expect(set.indexOf("acme.S.Tool")).toBe(-1);
  expect(set.summary(set.indexOf("acme.S.Tool150")).argumentNames).toEqual(["argument150"]);
  expect(set.schemas(set.indexOf("acme.S.Tool7")).inputSchema).toEqual(tools[7]?.inputSchema);
});

test("a service without tools is packed too", async () => {
  expect((await roundTrip([])).tools()).toEqual([]);
});

test("the schema digest depends on names and schemas only, not on order or wording", async () => {
  const one = tool("A", { type: "object", required: ["x"] });
  const two = tool("B");
  const digest = async (...tools: DiscoveredTool[]) => (await encodeToolSet(tools)).schemaDigest;
  const expected = await digest(one, two);
  expect(await digest(two, { ...one, description: "other words" })).toBe(expected);
  expect(await digest({ ...one, inputSchema: { required: ["x"], type: "object" } }, two)).toBe(expected);
  expect(await digest({ ...one, inputSchema: { required: ["y"], type: "object" } }, two)).not.toBe(expected);
  expect(await digest(one)).not.toBe(expected);
});

test("the digest notices every change", async () => {
  const [before, after] = await Promise.all([
    encodeToolSet([tool("A")]),
    encodeToolSet([{ ...tool("A"), description: "other words" }]),
  ]);
  expect(after.digest).not.toBe(before.digest);
});

test("a short name is the shortest end of the name that is unique", async () => {
  const set = await roundTrip(
    ["a.v1.S.Get", "a.v2.S.Get", "a.v1.S.List", "Put", "a.v1.S.Put"].map((name) => tool(name)),
  );
  expect(Object.fromEntries(set.names.map((name, index) => [name, set.shortName(index)]))).toEqual({
    "a.v1.S.Get": "v1.S.Get",
    "a.v2.S.Get": "v2.S.Get",
    "a.v1.S.List": "List",
    Put: "Put",
    "a.v1.S.Put": "S.Put",
  });
});
