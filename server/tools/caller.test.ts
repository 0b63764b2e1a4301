import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { anonymous, systemClock } from "@toolplane/framework";
import { HealthStatus, Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { Idempotency, Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { ToolCallSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { expect, test } from "vitest";
import type { Backend, Input, Output } from "../backends/invocation.ts";
import type { ResolvedTool } from "../registry/registry.ts";
import { createCaller } from "./caller.ts";
import { openOutbound } from "./test-support/open-caller.ts";

const tool: ResolvedTool = {
  name: "sample.Flood",
  service: "sample",
  environment: "default",
  version: "1.0.0",
  sourceName: "sample.v1.SampleService/Flood",
  kind: ToolKind.RPC,
  streaming: Streaming.SERVER,
  idempotency: Idempotency.UNSPECIFIED,
  cacheTtlMs: undefined,
  problem: undefined,
  definition: async () => ({ kind: "utcp", bytes: new Uint8Array() }),
  instances: [
    {
      id: "sample-1",
      health: HealthStatus.HEALTHY,
      target: () => ({ endpoint: "http://127.0.0.1:1", protocol: Protocol.GRPC, headers: new Headers() }),
    },
  ],
};

const one: Output = { json: () => 1, bytes: () => new Uint8Array([1]) };

/** Sends results as fast as they are read, until it is told to stop. */
const flood: Backend = {
  kind: "utcp",
  invoker: () => ({
    streaming: Streaming.SERVER,
    policy: { shared: undefined, attempts: undefined, timeoutMs: undefined },
    // It takes no input.
    parse: () => ({}) as Input,
    parseMessage: () => ({}) as Input,
    fingerprint: () => new Uint8Array(),
    restore: () => one,
    resultOf: () => one,
    async *invoke(_inputs, { signal }) {
      while (!signal.aborted) {
        yield one;
      }
      throw signal.reason;
    },
  }),
};

test("a backend that floods its caller does not keep the process from noticing the deadline", async () => {
  const caller = createCaller({
    registry: { resolveTool: () => tool },
    backends: [flood],
    outbound: openOutbound({ reportUnreachable() {} }),
    clock: systemClock,
  });
  const context = {
    principal: anonymous,
    signal: new AbortController().signal,
    timeoutMs: 50,
    headers: new Headers(),
    path: "call",
    gathers: false,
  };
  async function callToTheEnd() {
    for await (const _ of caller.call(create(ToolCallSchema, { tool: tool.name }), context)) {
      // Only the end matters.
    }
  }
  await expect(callToTheEnd()).rejects.toMatchObject({ code: Code.DeadlineExceeded });
});
