import { create, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { anonymous, systemClock } from "@toolplane/framework";
import { ToolCallSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { onTestFinished } from "vitest";
import { createRpcBackend } from "../../backends/rpc/backend.ts";
import { createConnectionPool } from "../../pool/index.ts";
import type { Registry } from "../../registry/registry.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { createCaller } from "../caller.ts";

/** What came of a call that succeeded. */
export interface Answer {
  readonly instanceId: string;
  readonly results: readonly JsonValue[];
}

/** Calls tools of a registry over real connections, each to its end. */
export function openCaller(
  registry: Registry,
): (call: MessageInitShape<typeof ToolCallSchema>) => Promise<Answer> {
  const pool = createConnectionPool({ logger: silentLogger, clock: systemClock });
  onTestFinished(() => pool.close());
  const caller = createCaller({
    registry,
    backends: [createRpcBackend({ pool, maxResultBytes: 1_000_000 })],
    clock: systemClock,
    defaultTimeoutMs: 10_000,
  });
  const context = {
    principal: anonymous,
    signal: new AbortController().signal,
    timeoutMs: undefined,
    headers: new Headers(),
    path: "call",
  };
  return async (call) => {
    let instanceId = "";
    const results: JsonValue[] = [];
    for await (const event of caller.call(create(ToolCallSchema, call), context)) {
      if (event.kind === "started") {
        instanceId = event.instanceId;
      } else {
        results.push(event.output.json());
      }
    }
    return { instanceId, results };
  };
}
