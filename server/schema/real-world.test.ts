import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import {
  createFileRegistry,
  createRegistry,
  type DescMessage,
  type FileRegistry,
  fromBinary,
  fromJson,
  type Registry,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { file_toolplane_registry_v1_registry_service } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { file_toolplane_tools_v1_tool_service } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { createJsonSchemaCheck, leadingComment, messageSchema, parseMessageJson } from "./index.ts";
import { randomMessage } from "./test-support/random-messages.ts";

const { resolve } = createRequire(import.meta.url);
const packages = [
  "type",
  "rpc",
  "firestore/v1",
  "longrunning",
  "api/expr/v1alpha1",
  "cloud/bigquery/v2",
  "container/v1",
];

/** Builds published `.proto` files of Google's APIs, with their comments. */
async function buildGoogleApis(): Promise<FileRegistry> {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-schema-"));
  try {
    const root = dirname(resolve("google-proto-files/package.json"));
    const output = join(folder, "image.binpb");
    const paths = packages.flatMap((name) => ["--path", join(root, "google", name)]);
    const buf = join(dirname(resolve("@bufbuild/buf/package.json")), "bin", "buf");
    await promisify(execFile)(process.execPath, [buf, "build", root, ...paths, "-o", output]);
    return createFileRegistry(fromBinary(FileDescriptorSetSchema, await readFile(output)));
  } finally {
    await rm(folder, { recursive: true });
  }
}

function messagesOf(registry: Iterable<{ readonly kind: string }>): DescMessage[] {
  return [...registry].filter((type): type is DescMessage => type.kind === "message");
}

function expectRoundTrip(
  draw: fc.GeneratorValue,
  messages: readonly DescMessage[],
  registry: Registry,
  followsRules: boolean,
): void {
  const desc = messages[draw(fc.nat, { max: messages.length - 1 })];
  if (desc === undefined) {
    throw new Error("there are no messages");
  }
  const message = randomMessage(draw, desc, registry, 2);
  const json = toJson(desc, message, { registry });
  const schema = messageSchema(desc, { rules: false });
  const ajv = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false });
  formats.default(ajv);
  expect(ajv.validate(schema, json), `${desc.typeName}: ${ajv.errorsText()}`).toBe(true);
  // Random messages seldom obey the rules of our own contract.
  const read = followsRules ? parseMessageJson(desc, json, { registry }) : fromJson(desc, json, { registry });
  expect(toBinary(desc, read)).toEqual(toBinary(desc, message));
}

describe("schemas of published APIs", () => {
  let registry: FileRegistry;
  let messages: DescMessage[];
  beforeAll(async () => {
    registry = await buildGoogleApis();
    messages = messagesOf(registry);
  });

  it("describe every message in valid JSON Schema", () => {
    expect(messages.length).toBeGreaterThan(500);
    for (const desc of messages) {
      expect(messageSchema(desc)["$schema"]).toBeDefined();
    }
    for (const desc of messages.filter((_, i) => i % 20 === 0)) {
      expect(createJsonSchemaCheck(messageSchema(desc)).warnings).toEqual([]);
    }
  });

  it("accept random messages, which are read back as they were", () => {
    fc.assert(
      fc.property(fc.gen(), (draw) => expectRoundTrip(draw, messages, registry, true)),
      { numRuns: 20 },
    );
  });

  it("accept random messages of our own contract", () => {
    const own = createRegistry(
      file_toolplane_registry_v1_registry_service,
      file_toolplane_tools_v1_tool_service,
    );
    fc.assert(
      fc.property(fc.gen(), (draw) => expectRoundTrip(draw, messagesOf(own), own, false)),
      { numRuns: 20 },
    );
  });

  it("carry the comments of the files", () => {
    const money = registry.getMessage("google.type.Money");
    const schema = money && messageSchema(money);
    expect(schema).toMatchObject({
      description: "Represents an amount of money with its currency type.",
      properties: {
        currencyCode: { description: "The three-letter currency code defined in ISO 4217." },
        units: { $ref: "#/$defs/json-int64" },
      },
    });
    const service = registry.getService("google.longrunning.Operations");
    expect(service && leadingComment(service)).toMatch(
      "Manages long-running operations with an API service.",
    );
    const method = service?.method["getOperation"];
    expect(method && leadingComment(method)).toMatch("Gets the latest state of a long-running operation.");
    const day = registry.getEnum("google.type.DayOfWeek");
    expect(day?.values[1] && leadingComment(day.values[1])).toBe("Monday");
  });
});
