import { hash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import {
  createHandlerContext,
  type HandlerContext,
  type Interceptor,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { authenticate, createLogger } from "@toolplane/framework";
import {
  callLevels,
  circuitBreaker,
  createConcurrencyLimit,
  createDeduplication,
  createRequestIds,
  createResponseCaching,
  methodConcurrency,
  rateLimitGate,
  retry,
} from "@toolplane/framework/interceptors";
import { createLimitSet, createMemoryIdempotencyStore } from "@toolplane/framework/policies";
import {
  AnalyzeTextRequestSchema,
  AnalyzeTextResponseSchema,
  TextService,
} from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";
import { beginCall, type Gate } from "../framework/interceptors/begin-call.ts";
import { type CallContext, callContextKey } from "../framework/interceptors/call-context.ts";
import { type CallRecord, callRecordKey } from "../framework/interceptors/call-record.ts";
import { CallValues } from "../framework/interceptors/call-values.ts";
import { keepOwnHeaders } from "../framework/interceptors/own-headers.ts";
import { translateErrors } from "../framework/interceptors/translate-errors.ts";
import { validateRequests } from "../framework/interceptors/validate.ts";
import type { BenchRow } from "./row.ts";

const ROUNDS = 31;
const CALLS = 2_000;

const method = TextService.method.analyzeText;
const ample = { limit: 100_000_000, periodMs: 60_000, burst: 100_000_000 };
const logger = createLogger({ level: "info", format: "json", destination: { write: () => true } });
const clock = { now: Date.now, monotonic: () => performance.now(), after: () => () => {} };
const response = (): UnaryResponse => ({
  stream: false,
  service: TextService,
  method,
  header: new Headers(),
  trailer: new Headers(),
  message: create(AnalyzeTextResponseSchema, { words: 10 }),
});

/** Does something with one call of its own, as often as it is asked to. */
type Step = (request: UnaryRequest, context: HandlerContext, call: CallContext) => unknown;

/** What each part of the chain costs a call that passes it, in one process, with a handler that does nothing. */
export async function stepRows(): Promise<BenchRow[]> {
  const closing: (() => unknown)[] = [];
  const steps = createSteps((close) => closing.push(close));
  const times = new Map<string, number[]>([...steps.keys(), ""].map((name) => [name, []]));
  try {
    for (let round = -3; round < ROUNDS; round++) {
      for (const [name, list] of times) {
        const time = await nanoseconds(steps.get(name) ?? nothing);
        if (round >= 0) {
          list.push(time);
        }
      }
    }
  } finally {
    for (const close of closing) {
      await close();
    }
  }
  const base = median(times.get("") ?? []);
  return [...steps.keys()].map((name) => ({
    area: "chain",
    what: `added to a call by: ${name}`,
    ours: `${((median(times.get(name) ?? []) - base) / 1_000).toFixed(1)} µs`,
    peer: "–",
    peerName: "",
    ratio: "–",
    target: "–",
    pass: true,
  }));
}

/** A handler that waits as any does that is asynchronous. */
const nothing: Step = async () => response();

function createSteps(onClose: (close: () => unknown) => void): Map<string, Step> {
  const limits = createLimitSet(callLevels({ global: ample, service: ample, caller: ample }));
  onClose(() => limits.close());
  const requestIds = createRequestIds({
    store: createMemoryIdempotencyStore({ maxEntries: 10_000_000 }),
    applies: () => true,
  });
  onClose(() => requestIds.close());
  const caching = createResponseCaching({ name: "bench", ttlMs: () => 60_000 });
  onClose(() => caching.cache.close());
  const concurrency = createConcurrencyLimit();
  const observe = beginCall({ logger, clock, gates: [], quietServices: new Set(), onCall: () => {} });
  return new Map<string, Step>([
    [
      "observe (context, log line, metrics)",
      async (request, context) => {
        await observe(context);
        context.values.get(callRecordKey)?.finish();
        return nothing(request, context, context.values.get(callContextKey) as CallContext);
      },
    ],
    ["authenticate (API key from memory)", gate(authenticate({ verifiers: [memoryKeys()] }).gate)],
    ["rate limits (global, service, caller)", gate(rateLimitGate({ limits }))],
    ["errors and end of the call", around(translateErrors())],
    ["validate", around(validateRequests())],
    [
      "request ids (a new id each)",
      around(requestIds.interceptor, (request, id) => request.header.set("idempotency-key", id)),
    ],
    ["cache (a miss each)", around(caching.interceptor)],
    ["deduplicate", around(createDeduplication().interceptor)],
    ["breaker (service and method)", around(circuitBreaker({ side: "server" }))],
    ["concurrency of the method (not limited)", around(methodConcurrency())],
    ["shed (adaptive concurrency)", around(concurrency.interceptor)],
    ["retry (client, not needed)", around(retry())],
  ]);
}

function gate(pass: Gate): Step {
  return async (request, context, call) => {
    await pass(call, context);
    return nothing(request, context, call);
  };
}

function around(interceptor: Interceptor, prepare?: (request: UnaryRequest, id: string) => void): Step {
  const handle = interceptor(async () => response());
  let serial = 0;
  return (request) => {
    prepare?.(request, `bench-${serial++}`);
    return handle(request);
  };
}

function memoryKeys() {
  const digest = (secret: string) => hash("sha256", secret, "base64url");
  const keys = new Map([[digest("bench-key"), { id: "key:bench", role: "caller" as const }]]);
  return {
    verify(token: string) {
      const identity = keys.get(digest(token));
      return identity === undefined
        ? ({ kind: "foreign" } as const)
        : ({ kind: "accepted", identity } as const);
    },
  };
}

let serial = 0;

/** What each of many calls takes, without making them ready. */
async function nanoseconds(step: Step): Promise<number> {
  const calls = Array.from({ length: CALLS }, prepare);
  const begin = performance.now();
  for (const { request, context, call } of calls) {
    await step(request, context, call);
  }
  return ((performance.now() - begin) * 1e6) / CALLS;
}

function prepare() {
  const record: CallRecord = {
    stage: "receiving",
    failure: undefined,
    outcome: undefined,
    finish: () => {},
    abandon: undefined,
    correlationId: "b7f2a1f0",
    peer: "127.0.0.1:50000",
    stopReading: () => {},
  };
  const contextValues = new CallValues().set(callRecordKey, record);
  const { signal } = new AbortController();
  const call: CallContext = {
    correlationId: record.correlationId,
    deadline: Date.now() + 30_000,
    principal: { id: "key:bench", role: "caller" },
    logger,
    traceparent: undefined,
    tracestate: undefined,
    peer: record.peer,
    signal,
  };
  contextValues.set(callContextKey, call);
  const header = new Headers({ authorization: "Bearer bench-key" });
  const request: UnaryRequest = {
    stream: false,
    service: TextService,
    method,
    requestMethod: "POST",
    url: "http://127.0.0.1/examples.text.v1.TextService/AnalyzeText",
    signal,
    header,
    contextValues,
    message: create(AnalyzeTextRequestSchema, { text: `To be or not to be, number ${serial++}` }),
  };
  const context = createHandlerContext({
    service: TextService,
    method,
    protocolName: "grpc",
    requestMethod: "POST",
    url: request.url,
    requestSignal: signal,
    requestHeader: header,
    contextValues,
  });
  keepOwnHeaders(context);
  return { request, context, call };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
