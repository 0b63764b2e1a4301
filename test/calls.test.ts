import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { anyPack, anyUnpack, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { createToolplane, type NodeToolplane } from "@toolplane/client/node";
import { createLogger, DomainError, type Server, serve } from "@toolplane/framework";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  ResourceInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import { ToolView } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { SchemaProfile } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import {
  AnalyzeTextRequestSchema,
  AnalyzeTextResponseSchema,
  TextService,
} from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";
import { startTestApp, type TestApp } from "./support/test-app.ts";

let app: TestApp;
let backend: Server;
let toolplane: NodeToolplane;
/** What the backend does in the test at hand. */
let text: Partial<ServiceImpl<typeof TextService>>;

beforeAll(async () => {
  app = await startTestApp();
  toolplane = createToolplane({ url: app.url });
  backend = await serve({
    name: "text",
    logger: createLogger({ level: "silent" }),
    register: { url: app.url },
    routes: (router) =>
      router.service(TextService, {
        analyzeText: (request, context) => text.analyzeText?.(request, context) ?? {},
        async *gradeSentences(request, context) {
          yield* text.gradeSentences?.(request, context) ?? [];
        },
      }),
  });
  await vi.waitFor(async () => expect(await findTool("text.AnalyzeText")).toBe(true), { timeout: 20_000 });
});

beforeEach(() => {
  text = {
    analyzeText: ({ text: words }) => ({ words: words.split(" ").length }),
    async *gradeSentences({ text: sentences }) {
      for (const [index, sentence] of sentences.split(". ").entries()) {
        yield { number: index + 1, sentence };
      }
    },
  };
});

afterAll(async () => {
  await backend?.close();
  await toolplane?.close();
  await app?.close();
});

const findTool = (name: string) =>
  toolplane.registry.getTool({ name }).then(
    () => true,
    () => false,
  );

async function refusal(call: Promise<unknown>): Promise<ConnectError> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof ConnectError) {
    return error;
  }
  throw new Error("the call was not refused", { cause: error });
}

test("a tool is called by its short and by its whole name", async () => {
  const whole = "text.examples.text.v1.TextService.AnalyzeText";
  for (const name of ["text.AnalyzeText", "text.TextService.AnalyzeText", "AnalyzeText", whole]) {
    const { result, info } = await toolplane.tools.callTool({
      call: { tool: name, input: { case: "arguments", value: { text: "one two three" } } },
    });
    expect(result?.value).toMatchObject({ case: "json", value: { kind: { case: "structValue" } } });
    expect(info).toMatchObject({ tool: whole, service: "text", environment: "default", resultCount: 1 });
  }
});

test("a Protobuf request gets a Protobuf result", async () => {
  const request = create(AnalyzeTextRequestSchema, { text: "one two" });
  const { result } = await toolplane.tools.callTool({
    call: {
      tool: "text.AnalyzeText",
      input: { case: "message", value: anyPack(AnalyzeTextRequestSchema, request) },
    },
  });
  const message =
    result?.value.case === "message" ? anyUnpack(result.value.value, AnalyzeTextResponseSchema) : undefined;
  expect(message?.words).toBe(2);
});

test("a Protobuf request of another type names the field", async () => {
  const message = anyPack(StringValueSchema, create(StringValueSchema, { value: "x" }));
  const error = await refusal(
    toolplane.tools.callTool({
      call: { tool: "text.AnalyzeText", input: { case: "message", value: message } },
    }),
  );
  expect(error.code).toBe(Code.InvalidArgument);
  expect(error.findDetails(BadRequestSchema)[0]?.fieldViolations).toMatchObject([{ field: "call.message" }]);
});

test("arguments are checked before anything is sent, and every mistake has its path", async () => {
  text.analyzeText = () => {
    throw new Error("the backend must not be called");
  };
  const error = await refusal(toolplane.callTool("text.AnalyzeText", { text: "", topWords: 1000 }));
  expect(error.code).toBe(Code.InvalidArgument);
  expect(error.findDetails(BadRequestSchema)[0]?.fieldViolations.map(({ field }) => field)).toEqual([
    "call.arguments.text",
    "call.arguments.topWords",
  ]);
  const mistyped = await refusal(toolplane.callTool("text.AnalyzeText", { txt: "x" }));
  expect(mistyped.findDetails(BadRequestSchema)[0]?.fieldViolations).toMatchObject([
    { field: "call.arguments.txt", description: expect.stringContaining('"text"') },
  ]);
});

test("results stream between a start and an end that describe the call", async () => {
  const events = await Array.fromAsync(
    toolplane.tools.callToolStream({
      call: { tool: "text.GradeSentences", input: { case: "arguments", value: { text: "A. B. C" } } },
    }),
  );
  expect(events.map(({ event }) => event.case)).toEqual([
    "started",
    "result",
    "result",
    "result",
    "finished",
  ]);
  expect(events.at(-1)?.event.value).toMatchObject({ resultCount: 3, service: "text" });
});

test("a tool that streams answers CallTool with the list of its results", async () => {
  expect(await toolplane.callTool("text.GradeSentences", { text: "A. B" })).toEqual([
    { number: 1, sentence: "A" },
    { number: 2, sentence: "B" },
  ]);
});

test("an unknown tool says which ones are close", async () => {
  const error = await refusal(toolplane.callTool("text.AnalyseText", {}));
  expect(error.code).toBe(Code.NotFound);
  expect(error.rawMessage).toContain("text.AnalyzeText");
  expect(error.findDetails(ResourceInfoSchema)).toMatchObject([{ resourceType: "tool" }]);
});

test("a backend's error keeps its code, message and details, and says where it came from", async () => {
  text.analyzeText = () => {
    throw new DomainError({
      code: Code.FailedPrecondition,
      reason: "DICTIONARY_MISSING",
      message: "no dictionary for this language",
      metadata: { language: "tlh" },
    });
  };
  const error = await refusal(toolplane.callTool("text.AnalyzeText", { text: "nuqneH" }));
  expect(error).toMatchObject({
    code: Code.FailedPrecondition,
    rawMessage: "no dictionary for this language",
  });
  expect(error.findDetails(ErrorInfoSchema)).toMatchObject([
    { reason: "DICTIONARY_MISSING", metadata: { language: "tlh" } },
    { reason: "BACKEND_ERROR", domain: "toolplane", metadata: { service: "text", environment: "default" } },
  ]);
});

test("trace context, correlation id and request id reach the backend", async () => {
  let headers = new Headers();
  text.analyzeText = (_, context) => {
    headers = context.requestHeader;
    return {};
  };
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const requestId = randomUUID();
  await toolplane.callTool(
    "text.AnalyzeText",
    { text: "x" },
    { requestId, headers: { traceparent, tracestate: "a=b", "x-correlation-id": "mine-1" } },
  );
  expect(headers.get("traceparent")).toBe(traceparent);
  expect(headers.get("tracestate")).toBe("a=b");
  expect(headers.get("x-correlation-id")).toBe("mine-1");
  expect(headers.get("x-request-id")).toBe(requestId);
});

test("the deadline of the call reaches the backend, and ends the call there too", async () => {
  const seen = Promise.withResolvers<HandlerContext>();
  text.analyzeText = (_, context) => {
    seen.resolve(context);
    return untilAborted(context.signal);
  };
  const error = await refusal(toolplane.callTool("text.AnalyzeText", { text: "x" }, { timeoutMs: 1_000 }));
  expect(error.code).toBe(Code.DeadlineExceeded);
  const context = await seen.promise;
  expect(Number(context.requestHeader.get("grpc-timeout")?.slice(0, -1))).toBeLessThanOrEqual(1_000);
  await expect.poll(() => context.signal.aborted).toBe(true);
});

test("a caller that leaves cancels the call at the backend", async () => {
  const seen = Promise.withResolvers<AbortSignal>();
  text.analyzeText = (_, context) => {
    seen.resolve(context.signal);
    return untilAborted(context.signal);
  };
  const leaving = new AbortController();
  const refused = refusal(toolplane.callTool("text.AnalyzeText", { text: "x" }, { signal: leaving.signal }));
  const signal = await seen.promise;
  leaving.abort();
  expect((await refused).code).toBe(Code.Canceled);
  await expect.poll(() => signal.aborted).toBe(true);
});

test("leaving a stream cancels it at the backend", async () => {
  const ended = Promise.withResolvers<void>();
  text.gradeSentences = async function* (_, context) {
    context.signal.addEventListener("abort", () => ended.resolve());
    for (let number = 1; !context.signal.aborted; number++) {
      yield { number, sentence: "again" };
    }
  };
  for await (const result of toolplane.callToolStream("text.GradeSentences", { text: "x" })) {
    expect(result).toMatchObject({ number: 1 });
    break;
  }
  await ended.promise;
});

test("many calls come back in the order in which they end, and a failure harms no other", async () => {
  const gate = Promise.withResolvers<void>();
  text.analyzeText = async ({ text: word }) => {
    if (word === "slow") {
      await gate.promise;
    }
    if (word === "bad") {
      throw new ConnectError("no such word", Code.NotFound);
    }
    return { words: 1 };
  };
  const call = (word: string) => ({
    tool: "text.AnalyzeText",
    input: { case: "arguments" as const, value: { text: word } },
  });
  const outcomes: [number, string][] = [];
  const calls = [call("slow"), call("bad"), { ...call("x"), tool: "nowhere" }, call("fast")];
  for await (const { index, outcome } of toolplane.tools.callTools({ calls, concurrency: 2 })) {
    outcomes.push([
      index,
      outcome.case === "error" ? (Code[outcome.value.code] ?? "") : String(outcome.case),
    ]);
    if (outcomes.length === 3) {
      gate.resolve();
    }
  }
  expect(outcomes).toEqual([
    [1, "NotFound"],
    [2, "NotFound"],
    [3, "response"],
    [0, "response"],
  ]);
});

test("no more calls run at once than were asked for", async () => {
  let running = 0;
  let most = 0;
  text.analyzeText = async () => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
    return {};
  };
  const calls = Array.from({ length: 12 }, () => ({
    tool: "text.AnalyzeText",
    input: { case: "arguments" as const, value: { text: "x" } },
  }));
  const outcomes = await Array.fromAsync(toolplane.tools.callTools({ calls, concurrency: 3 }));
  expect(outcomes).toHaveLength(12);
  expect(most).toBeLessThanOrEqual(3);
});

test("a service that stopped leaves the registry at once", async () => {
  const other = await serve({
    name: "other",
    logger: createLogger({ level: "silent" }),
    register: { url: app.url },
    routes: (router) => router.service(TextService, {}),
  });
  await expect.poll(() => findTool("other.AnalyzeText")).toBe(true);
  await other.close();
  expect(await findTool("other.AnalyzeText")).toBe(false);
});

test("the server's own services are tools too", async () => {
  expect(await toolplane.callTool("toolplane.GetService", { service: { name: "text" } })).toMatchObject({
    service: { name: "text", state: "SERVICE_STATE_READY" },
  });
});

function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
}

test("schemas and names are there in the form that a provider of language models takes", async () => {
  const whole = "text.examples.text.v1.TextService.AnalyzeText";
  const exact = await toolplane.registry.getTool({ name: "text.AnalyzeText" });
  expect(exact.tool?.name).toBe(whole);
  expect(exact.tool?.inputSchema).toHaveProperty("$schema");
  const { tools } = await toolplane.registry.listTools({
    filter: { service: "text" },
    view: ToolView.FULL,
    schemaProfile: SchemaProfile.GEMINI,
  });
  for (const { providerName, inputSchema } of tools) {
    expect(providerName).toMatch(/^[a-zA-Z][a-zA-Z0-9_-]{0,63}$/);
    expect(inputSchema).not.toHaveProperty("$schema");
    expect(inputSchema).toMatchObject({ type: "object", properties: { text: { type: "string" } } });
  }
  expect(new Set(tools.map(({ providerName }) => providerName)).size).toBe(tools.length);
});

test("tools are listed by a part of their names, and by the health of their service", async () => {
  const namesOf = async (filter: { name?: string; health?: HealthStatus }) =>
    (await toolplane.registry.listTools({ filter })).tools.map(({ alias }) => alias);
  expect(await namesOf({ name: "textservice.grade" })).toEqual(["text.GradeSentences"]);
  expect(await namesOf({ name: "text.", health: HealthStatus.UNHEALTHY })).toEqual([]);
});
