import { create } from "@bufbuild/protobuf";
import { systemClock } from "@toolplane/framework";
import { OutboundConfigSchema } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { onTestFinished } from "vitest";
import { createRpcBackend } from "../../../backends/rpc/backend.ts";
import { resolveOutbound } from "../../../config/outbound.ts";
import { createConnectionPool } from "../../../pool/index.ts";
import type { Registry } from "../../../registry/registry.ts";
import { silentLogger } from "../../../storage/silent-logger.ts";
import { createCaller } from "../../../tools/caller.ts";
import { createOutbound } from "../../../tools/outbound.ts";
import type { ToolCalling } from "../action.ts";
import { createToolCalling } from "../tool-calling.ts";

const MAX_RESULT_BYTES = 1_000_000;

/** Calls tools of a registry as a server does, over real connections. */
export function openToolCalling(registry: Registry): ToolCalling {
  const pool = createConnectionPool({ logger: silentLogger, clock: systemClock });
  const outbound = createOutbound({
    settings: resolveOutbound(create(OutboundConfigSchema, { retry: { attempts: 1 } })),
    defaultTimeoutMs: 10_000,
    registry,
    cache: undefined,
    idempotent: undefined,
    clock: systemClock,
  });
  onTestFinished(async () => {
    await outbound.close();
    await pool.close();
  });
  const caller = createCaller({
    registry,
    backends: [createRpcBackend({ pool, maxResultBytes: MAX_RESULT_BYTES })],
    outbound,
    clock: systemClock,
  });
  return createToolCalling({ caller, registry, maxResultBytes: MAX_RESULT_BYTES, clock: systemClock });
}
