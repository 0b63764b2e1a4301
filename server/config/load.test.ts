import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DescMessage } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import {
  InboundConfigSchema,
  OrchestrationConfigSchema,
  OutboundConfigSchema,
  PoolConfigSchema,
  ServerConfigSchema,
  TestingConfigSchema,
} from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadSettings } from "./load.ts";

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "toolplane-config-"));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(text: string): string {
  const path = join(folder, "server.yaml");
  writeFileSync(path, text);
  return path;
}

function refusal(load: () => unknown): DomainError {
  try {
    load();
  } catch (error) {
    if (error instanceof DomainError) {
      return error;
    }
    throw error;
  }
  throw new Error("the configuration was accepted");
}

test("without a file and an environment, the documented defaults hold", () => {
  expect(loadSettings({}, {})).toMatchObject({
    listen: "127.0.0.1:7400",
    dataDir: ".toolplane",
    databaseUrl: undefined,
    limits: { maxMessageBytes: 4_194_304, maxTimeoutMs: 86_400_000 },
    registry: { defaultLeaseTtlMs: 30_000, discoveryTimeoutMs: 4_000 },
    health: { intervalMs: 60_000 },
    tools: { defaultTimeoutMs: 60_000, defaultConcurrency: 5 },
    pool: { maxConnections: 100, maxConnectionsPerHost: 10, maxIdleConnections: 20, maxAgeMs: 300_000 },
    drainTimeoutMs: 10_000,
  });
});

test("the command line wins over the environment, which wins over the file", () => {
  const config = file("listen: 127.0.0.1:1001\ndata_dir: from-file\npool: { max_connections: 7 }\n");
  const env = {
    TOOLPLANE_CONFIG: config,
    TOOLPLANE_LISTEN: "127.0.0.1:1002",
    TOOLPLANE_DATA_DIR: "from-env",
  };
  expect(loadSettings({ listen: "127.0.0.1:1003" }, env)).toMatchObject({
    listen: "127.0.0.1:1003",
    dataDir: "from-env",
    pool: { maxConnections: 7 },
  });
});

test("an empty file is a configuration without settings", () => {
  expect(loadSettings({ config: file("") }, {}).listen).toBe("127.0.0.1:7400");
});

describe("a mistake in the file names its field", () => {
  test.each([
    ["an unknown field", "pool:\n  max_connection: 3\n", "pool.max_connection"],
    ["a wrong type", "drain_timeout: [1]\n", "drain_timeout"],
    ["a value outside its range", "pool: { connectTimeout: 3600s }\n", "pool.connect_timeout"],
    ["an address that is none", "listen: nowhere\n", "listen"],
    ["a secret without hosts", "secrets: [{ name: key, env: KEY }]\n", "secrets[0].hosts"],
  ])("%s", (_, text, field) => {
    const error = refusal(() => loadSettings({ config: file(text) }, {}));
    expect(error.init.code).toBe(Code.InvalidArgument);
    expect(error.init.fields?.map((violation) => violation.field)).toContain(field);
  });
});

test("fields are suggested under the names that are documented", () => {
  const { message } = refusal(() => loadSettings({ config: file("limits: { max_message_size: 1 }\n") }, {}));
  expect(message).toContain('limits.max_message_size: is no known field (did you mean "max_message_bytes"?)');
  expect(message).toContain('"max_header_bytes"');
  expect(message).not.toContain("maxMessageBytes");
});

test.each([
  ["broken YAML", "listen: [\n", "not valid YAML"],
  ["a list instead of a mapping", "- 1\n", "mapping"],
])("%s is refused in words", (_, text, words) => {
  expect(refusal(() => loadSettings({ config: file(text) }, {})).message).toContain(words);
});

test("a file that cannot be read names the variable to change", () => {
  const error = refusal(() => loadSettings({}, { TOOLPLANE_CONFIG: join(folder, "absent.yaml") }));
  expect(error.init).toMatchObject({ code: Code.FailedPrecondition, reason: "CONFIG_UNREADABLE" });
  expect(error.init.preconditions).toMatchObject([{ subject: "TOOLPLANE_CONFIG" }]);
});

const page = readFileSync(join(import.meta.dirname, "../../docs/configuration.md"), "utf8");

test("the example in the documentation is a valid configuration", () => {
  const example = /```yaml\n([\s\S]*?)```/.exec(page)?.[1] ?? "";
  expect(loadSettings({ config: file(example) }, {})).toMatchObject({
    secrets: [{ name: "weather-key", hosts: ["api.weather.example"] }],
    inbound: { callers: new Map([["key:ci", undefined]]) },
    outbound: { cache: { durable: true }, tools: [{ tool: "weather.*", timeoutMs: 5_000 }] },
  });
  // What it leaves as a comment is valid too.
  const everything = example.replaceAll(/^# (?=\w+:)/gm, "");
  expect(loadSettings({ config: file(everything) }, {})).toMatchObject({
    databaseUrl: "postgres://user@host/db",
    redisUrl: "rediss://:password@host:6379",
  });
});

test("every field about callers, backends, connections to them, test runs, runs and models is documented", () => {
  const missing = (desc: DescMessage): string[] =>
    desc.fields.flatMap((field) => [
      ...(new RegExp(`\\b${field.name}\\b`).test(page) ? [] : [`${desc.name}.${field.name}`]),
      ...(field.message?.file === desc.file ? missing(field.message) : []),
    ]);
  expect(
    [
      InboundConfigSchema,
      OutboundConfigSchema,
      PoolConfigSchema,
      TestingConfigSchema,
      OrchestrationConfigSchema,
    ].flatMap(missing),
  ).toEqual([]);
  const { fields } = ServerConfigSchema;
  expect(
    fields.filter(({ name }) => !new RegExp(`\\b${name}\\b`).test(page)).map(({ name }) => name),
  ).toEqual([]);
});
