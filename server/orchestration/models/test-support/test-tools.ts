import { create, type JsonValue } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorSetSchema,
  MethodOptions_IdempotencyLevel,
} from "@bufbuild/protobuf/wkt";
import { systemClock } from "@toolplane/framework";
import { createSecretResolver } from "../../../config/secrets.ts";
import { createConnectionPool } from "../../../pool/index.ts";
import { createRegistry, type Registry } from "../../../registry/registry.ts";
import { described, instance, testOptions } from "../../../registry/test-support/specs.ts";
import { silentLogger } from "../../../storage/silent-logger.ts";
import { openTestDatabase } from "../../../storage/testing.ts";
import type { ToolCalling, ToolCallSpec } from "../../actions/action.ts";

/** A registry for the tests of a file, on a database of its own. */
export async function openTestRegistry(): Promise<{ registry: Registry; close(): Promise<void> }> {
  const parts = { clock: systemClock, logger: silentLogger };
  const database = await openTestDatabase();
  const pool = createConnectionPool(parts);
  const secrets = createSecretResolver([], {});
  const registry = await createRegistry({ ...parts, database, pool, secrets, options: testOptions });
  return {
    registry,
    async close() {
      await registry.close();
      await pool.close();
      await database.close();
    },
  };
}

export interface TestMethod {
  readonly name: string;
  readonly readOnly?: boolean;
}

/**
 * Registers a service whose tools are named `<name>.test.<name>.v1.Api.<method>`; all take a text `city` and a number
 * `days`.
 */
export async function registerTools(
  registry: Registry,
  name: string,
  methods: readonly TestMethod[],
  tags: readonly string[] = [],
): Promise<void> {
  const descriptors = create(FileDescriptorSetSchema, {
    file: [
      {
        name: `test/${name}/v1/api.proto`,
        package: `test.${name}.v1`,
        syntax: "proto3",
        messageType: [
          {
            name: "Request",
            field: [
              field("city", 1, FieldDescriptorProto_Type.STRING),
              field("days", 2, FieldDescriptorProto_Type.INT32),
            ],
          },
          { name: "Response" },
        ],
        service: [
          {
            name: "Api",
            method: methods.map((method) => ({
              name: method.name,
              inputType: `.test.${name}.v1.Request`,
              outputType: `.test.${name}.v1.Response`,
              options: {
                idempotencyLevel: method.readOnly
                  ? MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS
                  : MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN,
              },
            })),
          },
        ],
      },
    ],
  });
  // Nobody listens there: the calls of these tests end at their own ToolCalling.
  await registry.register(
    described({ name, tags: [...tags] }, descriptors),
    instance({ endpoint: "localhost:1" }),
  );
}

function field(name: string, number: number, type: FieldDescriptorProto_Type) {
  return { name, number, type, label: FieldDescriptorProto_Label.OPTIONAL };
}

/** The whole name of a tool of `registerTools`. */
export function toolNamed(service: string, method: string): string {
  return `${service}.test.${service}.v1.Api.${method}`;
}

export interface MadeCall extends ToolCallSpec {
  readonly path: string;
  readonly idempotencyKey: string;
  readonly signal: AbortSignal;
}

/** Answers calls in place of a backend, and counts them. */
export interface RecordingCalling extends ToolCalling {
  readonly calls: readonly MadeCall[];
  /** Calls that were answered. */
  readonly finished: readonly MadeCall[];
  /** The most that ran at once. */
  readonly peak: () => number;
}

export function recordingCalling(
  answer: (call: MadeCall) => JsonValue | Promise<JsonValue> = ({ arguments: given }) => ({ got: given }),
): RecordingCalling {
  const calls: MadeCall[] = [];
  const finished: MadeCall[] = [];
  let [running, peak] = [0, 0];
  return {
    calls,
    finished,
    peak: () => peak,
    async call(spec, { path, idempotencyKey, signal }) {
      signal.throwIfAborted();
      const call = { ...spec, path, idempotencyKey, signal };
      calls.push(call);
      peak = Math.max(peak, ++running);
      try {
        const result = await answer(call);
        signal.throwIfAborted();
        finished.push(call);
        return result;
      } finally {
        running--;
      }
    },
  };
}
