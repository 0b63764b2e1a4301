import { create, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { anonymous, systemClock } from "@toolplane/framework";
import { OutboundConfigSchema } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { ToolCallSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { onTestFinished } from "vitest";
import { createRpcBackend } from "../../backends/rpc/backend.ts";
import { resolveOutbound } from "../../config/outbound.ts";
import { createConnectionPool } from "../../pool/index.ts";
import type { Registry } from "../../registry/registry.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { createCaller } from "../caller.ts";
import { createOutbound, type Outbound } from "../outbound.ts";

/** What came of a call that succeeded. */
export interface Answer {
  readonly instanceId: string;
  readonly results: readonly JsonValue[];
}

/** What protects calls, as configured; by default as it is shipped. */
export function openOutbound(
  registry: Pick<Registry, "reportUnreachable">,
  settings: MessageInitShape<typeof OutboundConfigSchema> = {},
): Outbound {
  const outbound = createOutbound({
    settings: resolveOutbound(create(OutboundConfigSchema, settings)),
    defaultTimeoutMs: 10_000,
    registry,
    cache: undefined,
    idempotent: undefined,
    clock: systemClock,
  });
  onTestFinished(() => outbound.close());
  return outbound;
}

/** Calls tools of a registry over real connections, each to its end. */
export function openCaller(
  registry: Registry,
  settings?: MessageInitShape<typeof OutboundConfigSchema>,
): (call: MessageInitShape<typeof ToolCallSchema>) => Promise<Answer> {
  const pool = createConnectionPool({ logger: silentLogger, clock: systemClock });
  onTestFinished(() => pool.close());
  const outbound = openOutbound(registry, settings);
  const caller = createCaller({
    registry,
    backends: [createRpcBackend({ pool, maxResultBytes: 1_000_000 })],
    outbound,
    clock: systemClock,
  });
  const context = {
    principal: anonymous,
    signal: new AbortController().signal,
    timeoutMs: undefined,
    headers: new Headers(),
    path: "call",
    gathers: false,
  };
  return async (call) => {
    let instanceId = "";
    const results: JsonValue[] = [];
    for await (const event of caller.call(create(ToolCallSchema, call), context)) {
      if (event.kind === "started") {
        instanceId = event.instanceId;
      } else if (event.kind === "result") {
        results.push(event.output.json());
      }
    }
    return { instanceId, results };
  };
}
