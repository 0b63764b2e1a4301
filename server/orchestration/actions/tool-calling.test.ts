import { setTimeout } from "node:timers/promises";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { callContext, DomainError } from "@toolplane/framework";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sampleImplementation } from "../../../framework/test-support/sample-implementation.ts";
import { SampleService } from "../../../framework/test-support/sample-service.ts";
import { emptyRegistry, startServer } from "../../registry/test-support/open-registry.ts";
import { instance, service } from "../../registry/test-support/specs.ts";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { CancelledError } from "../engine/engine.ts";
import { parentOf, runHeaders } from "./run-headers.ts";
import { openToolCalling } from "./test-support/open-tool-calling.ts";
import { stepContext } from "./test-support/step-context.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

/** A backend whose calls do what the test says, and one who calls it. */
async function openStage(implementation: Partial<ServiceImpl<typeof SampleService>>) {
  const registry = await emptyRegistry(database);
  const backend = await startServer({
    routes: (router) => router.service(SampleService, { ...sampleImplementation, ...implementation }),
  });
  await registry.register(service({ name: "s" }), instance({ id: "one", endpoint: backend.url }));
  return { registry, toolCalling: openToolCalling(registry) };
}

function spec(tool: string, args: Record<string, number | string>) {
  return { tool, environment: "", version: "", arguments: args };
}

const hi = spec("s.Echo", { value: "hi" });

test("a call says which step of which run it is for, on whose behalf, and under which key", async () => {
  const seen: HandlerContext[] = [];
  const { toolCalling } = await openStage({
    echo(request, context) {
      seen.push(context);
      return request;
    },
  });
  const context = stepContext({ path: "notify[3]" });
  expect(await toolCalling.call(hi, { ...context, run: { ...context.run, depth: 2 } })).toBe("hi");
  const [received] = seen;
  expect.assert(received !== undefined);
  expect(parentOf(received.requestHeader)).toEqual({ runId: "run-1", depth: 3 });
  expect(callContext(received).correlationId).toBe("run-1/notify:3:");
  expect(received.requestHeader.get("idempotency-key")).toBe(context.idempotencyKey);
});

test("a call that is made again reaches the tool again, under the same key: outcomes are kept with steps", async () => {
  const keys: (string | null)[] = [];
  const { toolCalling } = await openStage({
    echo(request, { requestHeader }) {
      keys.push(requestHeader.get("x-request-id"));
      return request;
    },
  });
  const context = stepContext();
  await toolCalling.call(hi, context);
  await toolCalling.call(hi, context);
  expect(keys).toEqual([context.idempotencyKey, context.idempotencyKey]);
});

test.for([Code.Unavailable, Code.Internal, Code.Unknown, Code.Aborted, Code.ResourceExhausted])(
  "after a failure that may pass, a retry reaches the tool: %i",
  async (code) => {
    let calls = 0;
    const { toolCalling } = await openStage({
      echo(request) {
        if (++calls === 1) {
          throw new ConnectError("not now", code);
        }
        return request;
      },
    });
    const context = stepContext();
    await expect(toolCalling.call(hi, context)).rejects.toMatchObject({ code });
    expect(await toolCalling.call(hi, context)).toBe("hi");
    expect(calls).toBe(2);
  },
);

/** An Echo that does not answer before its caller leaves. */
function hangingEcho() {
  const begun: AbortSignal[] = [];
  const echo: ServiceImpl<typeof SampleService>["echo"] = async (request, { signal }) => {
    begun.push(signal);
    if (begun.length === 1) {
      await setTimeout(60_000, undefined, { signal, ref: false });
    }
    return request;
  };
  return { echo, begun };
}

test("cancelling a run reaches the running call in its backend", async () => {
  const { echo, begun } = hangingEcho();
  const { toolCalling } = await openStage({ echo });
  const cancel = new AbortController();
  const context = stepContext({ signal: cancel.signal });
  const call = toolCalling.call(hi, context);
  call.catch(() => undefined);
  await expect.poll(() => begun.length).toBe(1);
  cancel.abort(new CancelledError("user:ada", "enough"));
  await expect(call).rejects.toMatchObject({ code: Code.Canceled });
  await expect.poll(() => begun[0]?.aborted).toBe(true);
  // The key is free at once, for a worker that takes the run over.
  expect(await toolCalling.call(hi, { ...context, signal: new AbortController().signal })).toBe("hi");
});

test("an attempt whose time is over is stopped in its backend, and the next one reaches it", async () => {
  const { echo, begun } = hangingEcho();
  const { toolCalling } = await openStage({ echo });
  const context = stepContext();
  await expect(toolCalling.call({ ...hi, timeoutMs: 50 }, context)).rejects.toMatchObject({
    code: Code.DeadlineExceeded,
  });
  await expect.poll(() => begun[0]?.aborted).toBe(true);
  expect(await toolCalling.call(hi, context)).toBe("hi");
});

test("a step that has no more time ends its call as a deadline does, for those who watch the backend", async () => {
  const { echo, begun } = hangingEcho();
  const { toolCalling } = await openStage({ echo });
  const limit = new AbortController();
  const call = toolCalling.call(hi, stepContext({ signal: limit.signal }));
  call.catch(() => undefined);
  await expect.poll(() => begun.length).toBe(1);
  limit.abort(new DomainError({ code: Code.DeadlineExceeded, reason: "STEP_TIMEOUT", message: "too slow" }));
  await expect(call).rejects.toMatchObject({ code: Code.DeadlineExceeded });
  await expect.poll(() => begun[0]?.aborted).toBe(true);
});

test("what a tool streams is gathered in a list, and its backend is told the key", async () => {
  const keys: (string | null)[] = [];
  const { toolCalling } = await openStage({
    async *count({ value }, { requestHeader }) {
      keys.push(requestHeader.get("idempotency-key"));
      for (let number = 1; number <= value; number++) {
        yield { value: number };
      }
    },
  });
  const context = stepContext();
  const results = await toolCalling.call(spec("s.Count", { value: 3 }), context);
  expect(results).toEqual([1, 2, 3]);
  expect(keys).toEqual([context.idempotencyKey]);
});

test("results that are too large are refused with what to do", async () => {
  const { toolCalling } = await openStage({});
  await expect(toolCalling.call(spec("s.Flood", {}), stepContext())).rejects.toMatchObject({
    init: { code: Code.ResourceExhausted, reason: "RESULT_TOO_LARGE" },
  });
});

test("mistakes in a call name the field", async () => {
  const { toolCalling } = await openStage({});
  await expect(
    toolCalling.call(spec("s.Echo", { value: "hi", valeu: "hi" }), stepContext()),
  ).rejects.toMatchObject({
    init: { code: Code.InvalidArgument, fields: [{ field: "tool.arguments.valeu" }] },
  });
  await expect(toolCalling.call({ ...hi, arguments: "hi" }, stepContext())).rejects.toMatchObject({
    init: { code: Code.InvalidArgument, fields: [{ field: "tool.arguments" }] },
  });
  await expect(toolCalling.call(spec("s.Ecko", {}), stepContext())).rejects.toMatchObject({
    init: { code: Code.NotFound },
  });
});

test("the correlation id of a long path is bounded, and that of another one is another", () => {
  const one = runHeaders({ id: "r", depth: 0 }, "a".repeat(300)).get("x-correlation-id") ?? "";
  const other = runHeaders({ id: "r", depth: 0 }, `${"a".repeat(300)}b`).get("x-correlation-id") ?? "";
  expect(one).toMatch(/^[A-Za-z0-9._:/+=@-]{1,128}$/);
  expect(other).not.toBe(one);
});

test.for([
  [{}, undefined],
  [
    { "x-toolplane-run": "r", "x-toolplane-run-depth": "1" },
    { runId: "r", depth: 2 },
  ],
  [{ "x-toolplane-run": "r" }, undefined],
  [{ "x-toolplane-run": "r", "x-toolplane-run-depth": "-1" }, undefined],
  [{ "x-toolplane-run": "r", "x-toolplane-run-depth": "1e9" }, undefined],
  [{ "x-toolplane-run": "../r", "x-toolplane-run-depth": "1" }, undefined],
] as const)("headers are believed only as runs write them: %j", ([headers, parent]) => {
  expect(parentOf(new Headers(headers))).toEqual(parent);
});
