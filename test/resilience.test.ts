import { randomUUID } from "node:crypto";
import { type JsonObject, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { Code as RpcCode } from "@toolplane/gen/google/rpc/code_pb.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import { BreakerState } from "@toolplane/gen/toolplane/admin/v1/policies_pb.js";
import { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { clientsOf, type FaultInstances, startFaultInstances } from "./support/fault-instances.ts";
import { startTestApp, type TestApp } from "./support/test-app.ts";

/** Times are short, so that tests see the end of them. */
const CONFIG = `
outbound:
  breaker: { open_duration: 0.3s, max_open_duration: 0.3s }
  outliers: { ejection_time: 0.3s }
  retry: { base_delay: 0.01s, max_delay: 0.05s }
  tools:
    - { tool: "kept*.Read", cache_ttl: 60s }
    - { tool: "kept*.Write", cache_ttl: 60s }
    - { tool: "hedged.*", hedge_delay: 0.05s }
    - { tool: "rated.*", rate_limit: { requests: 1, period: 3600s, burst: 2 } }
    - { tool: "*rated.*", max_concurrency: 1 }
    - { tool: "narrow.*", max_concurrency: 2, unshared: true }
    - { tool: "paced.*", adaptive_rate: { initial: 1, min: 1, max: 1, max_wait: 0.001s }, unshared: true }
    - { tool: "fresh.*", last_good: 3600s }
    - { tool: "fixed.*", result_json: '{"text": "nothing better"}' }
    - { tool: "versioned.*", version: "1.0.0" }
    - { tool: "once.*", retry_attempts: 1 }
`;

let app: TestApp;
let clients: ReturnType<typeof clientsOf>;

beforeAll(async () => {
  app = await startTestApp({ config: CONFIG });
  clients = clientsOf(app);
});

afterAll(() => app?.close());

interface CallOptions {
  readonly requestId?: string;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly by?: ReturnType<typeof clientsOf>;
}

async function call(
  tool: string,
  args: JsonObject,
  { requestId = "", by = clients, timeoutMs, signal }: CallOptions = {},
) {
  const { result, info } = await by.tools.callTool(
    { call: { tool, requestId, input: { case: "arguments", value: args } } },
    { ...(timeoutMs !== undefined && { timeoutMs }), ...(signal && { signal }) },
  );
  expect.assert(result?.value.case === "json");
  expect.assert(info !== undefined);
  return { json: toJson(ValueSchema, result.value.value) as JsonObject, info };
}

const read = (service: string, options?: CallOptions, text = "x") =>
  call(`${service}.Read`, { text }, options);
const write = (service: string, options?: CallOptions, text = "x") =>
  call(`${service}.Write`, { text }, options);

async function failure(work: Promise<unknown>): Promise<ConnectError> {
  return await work.then(
    () => expect.unreachable("it did not fail"),
    (error: unknown) => ConnectError.from(error),
  );
}

const reasonOf = (error: ConnectError) => error.findDetails(ErrorInfoSchema).map(({ reason }) => reason);

const start = (service: string, count = 1): Promise<FaultInstances> =>
  startFaultInstances({ registry: clients.registry, service, count });

async function total(instances: FaultInstances) {
  const counts = await instances.counts();
  return {
    reads: counts.reduce((sum, { reads }) => sum + reads, 0),
    writeCalls: counts.reduce((sum, { writeCalls }) => sum + writeCalls, 0),
    writes: counts.reduce((sum, { writes }) => sum + writes, 0),
  };
}

const breakerOf = async (name: string) =>
  (await clients.admin.listBreakers({ pageSize: 1_000 })).breakers.find((breaker) => breaker.name === name);
const ejectionsOf = async (service: string) =>
  (await clients.admin.listBreakers({ pageSize: 1_000 })).ejections.filter((one) => one.service === service);

describe("identical calls at the same time", () => {
  test("reach the backend once, and all get the result", async () => {
    const instances = await start("shared");
    instances.fail(0, { latency: { nanos: 300_000_000 } });
    const answers = await Promise.all(Array.from({ length: 100 }, () => read("shared")));
    expect(answers.filter(({ info }) => info.source === ResultSource.BACKEND)).toHaveLength(1);
    expect(answers.filter(({ info }) => info.source === ResultSource.SHARED)).toHaveLength(99);
    for (const { json, info } of answers) {
      expect(json).toEqual({ text: "x", instance: "shared-1.0.0-0" });
      expect(info.attempts).toBe(info.source === ResultSource.BACKEND ? 1 : 0);
      expect(info.instanceId).toBe("shared-1.0.0-0");
    }
    expect(await total(instances)).toMatchObject({ reads: 1 });
  });

  test("that differ in anything are made each", async () => {
    const instances = await start("apart");
    instances.fail(0, { latency: { nanos: 100_000_000 } });
    await Promise.all([read("apart", {}, "a"), read("apart", {}, "b"), write("apart"), write("apart")]);
    expect(await total(instances)).toEqual({ reads: 2, writeCalls: 2, writes: 2 });
  });

  test("get the same error, each its own", async () => {
    const instances = await start("failing");
    instances.fail(0, { latency: { nanos: 100_000_000 }, errorRate: 1, errorCode: RpcCode.NOT_FOUND });
    const errors = await Promise.all(Array.from({ length: 20 }, () => failure(read("failing"))));
    for (const error of errors) {
      expect(error.code).toBe(Code.NotFound);
      const infos = error.findDetails(ErrorInfoSchema);
      expect(infos).toHaveLength(1);
      expect(infos[0]?.metadata).toMatchObject({ instance_id: "failing-1.0.0-0", service: "failing" });
    }
    expect(await total(instances)).toMatchObject({ reads: 1 });
  });

  test("go on when the first, or any other, leaves or runs out of time", async () => {
    const instances = await start("leaving");
    instances.fail(0, { latency: { nanos: 500_000_000 } });
    const leaving = [new AbortController(), new AbortController()] as const;
    const first = failure(read("leaving", { signal: leaving[0].signal }));
    await expect.poll(async () => (await total(instances)).reads).toBe(1);
    const follower = read("leaving");
    const other = failure(read("leaving", { signal: leaving[1].signal }));
    const hasty = failure(read("leaving", { timeoutMs: 50 }));
    expect((await hasty).code).toBe(Code.DeadlineExceeded);
    leaving[0].abort();
    leaving[1].abort();
    expect([(await first).code, (await other).code]).toEqual([Code.Canceled, Code.Canceled]);
    expect((await follower).info).toMatchObject({ source: ResultSource.SHARED });
    expect(await total(instances)).toMatchObject({ reads: 1 });
  });
});

describe("a circuit breaker", () => {
  test("opens within three failures, tells when to come back, probes, and closes", async () => {
    const instances = await start("broken");
    instances.fail(0, { errorRate: 1 });
    for (let round = 0; round < 3; round++) {
      const error = await failure(write("broken"));
      expect(error.code).toBe(Code.Unavailable);
      expect(reasonOf(error)).toEqual(["BACKEND_ERROR"]);
    }
    const refused = await failure(write("broken"));
    expect(refused.code).toBe(Code.Unavailable);
    expect(reasonOf(refused)).toEqual(["CIRCUIT_OPEN"]);
    expect(refused.findDetails(RetryInfoSchema)).toHaveLength(1);
    expect(await total(instances)).toMatchObject({ writeCalls: 3 });
    instances.fail(0, {});
    await expect
      .poll(() =>
        write("broken").then(
          () => true,
          () => false,
        ),
      )
      .toBe(true);
    await write("broken");
    await write("broken");
    for (const name of ["service/broken/default/1.0.0", "instance/broken/default/1.0.0/broken-1.0.0-0"]) {
      await expect.poll(async () => (await breakerOf(name))?.state).toBe(BreakerState.CLOSED);
    }
  });

  test("never opens on callers' mistakes", async () => {
    const instances = await start("mistaken");
    for (const [errorCode, code] of [
      [RpcCode.INVALID_ARGUMENT, Code.InvalidArgument],
      [RpcCode.NOT_FOUND, Code.NotFound],
      [RpcCode.PERMISSION_DENIED, Code.PermissionDenied],
    ] as const) {
      instances.fail(0, { errorRate: 1, errorCode });
      for (let round = 0; round < 35; round++) {
        expect((await failure(read("mistaken", {}, String(round)))).code).toBe(code);
      }
    }
    expect(await total(instances)).toMatchObject({ reads: 105 });
    const { breakers } = await clients.admin.listBreakers({ pageSize: 1_000 });
    const own = breakers.filter(({ name }) => name.includes("/mistaken/"));
    expect(own.length).toBeGreaterThan(0);
    expect(own.every(({ state }) => state === BreakerState.CLOSED)).toBe(true);
  });

  test("of a tool that is buggy leaves the other tools of its service alone", async () => {
    const instances = await start("buggy");
    instances.fail(0, { errorRate: 1, errorCode: RpcCode.INTERNAL });
    for (let round = 0; round < 3; round++) {
      expect((await failure(read("buggy"))).code).toBe(Code.Internal);
    }
    expect(reasonOf(await failure(read("buggy")))).toEqual(["CIRCUIT_OPEN"]);
    instances.fail(0, {});
    expect((await write("buggy")).json).toMatchObject({ writes: "1" });
  });

  test("that an operator opens stays open until it is reset", async () => {
    const instances = await start("isolated");
    const name = "service/isolated/default/1.0.0";
    await clients.admin.isolateBreaker({ name });
    const error = await failure(read("isolated"));
    expect(reasonOf(error)).toEqual(["CIRCUIT_OPEN"]);
    expect(error.findDetails(ErrorInfoSchema)[0]?.metadata).toMatchObject({
      breaker: name,
      state: "isolated",
    });
    await clients.admin.resetBreaker({ name });
    await read("isolated");
    expect(await total(instances)).toMatchObject({ reads: 1 });
  });
});

describe("one of three instances", () => {
  test.for([
    ["fails", { errorRate: 1 }],
    ["resets streams", { resetRate: 1 }],
    ["drops connections", { disconnectRate: 1 }],
    ["answers with garbage", { badFrameRate: 1 }],
  ] as const)("%s, and calls that may be repeated all succeed", async ([what, faults]) => {
    const service = `one-${what.split(" ")[0]}`;
    const instances = await start(service, 3);
    instances.fail(1, faults);
    for (let round = 0; round < 60; round++) {
      const { info } = await read(service, {}, String(round));
      expect(info.instanceId).not.toBe(instances.ids[1]);
      expect(info.attempts).toBeGreaterThanOrEqual(1);
    }
  });

  test("hangs: its calls are taken away from it, and it is left out", async () => {
    const instances = await start("hanging", 3);
    for (let round = 0; round < 30; round++) {
      await read("hanging", {}, `well ${round}`);
    }
    instances.fail(1, { hangRate: 1 });
    const answers = await Promise.all(
      Array.from({ length: 15 }, (_, round) => read("hanging", { timeoutMs: 20_000 }, String(round))),
    );
    expect(answers.some(({ info }) => info.attempts > 1)).toBe(true);
    expect(answers.every(({ info }) => info.instanceId !== instances.ids[1])).toBe(true);
  });

  test("is ejected, and comes back when it is well", async () => {
    const instances = await start("ejected", 3);
    instances.fail(1, { errorRate: 1 });
    await expect
      .poll(async () => {
        await read("ejected", {}, randomUUID());
        return (await ejectionsOf("ejected")).map(({ instanceId, tool }) => [instanceId, tool]);
      })
      .toEqual([["ejected-1.0.0-1", "ejected.examples.faults.v1.FaultService.Read"]]);
    instances.fail(1, {});
    await expect
      .poll(async () => {
        const { info } = await read("ejected", {}, randomUUID());
        return info.instanceId;
      })
      .toBe("ejected-1.0.0-1");
    await expect
      .poll(async () => {
        await read("ejected", {}, randomUUID());
        return ejectionsOf("ejected");
      })
      .toEqual([]);
  });
});

describe("what is told of a call", () => {
  test("begins when it is sent and is whole when it has ended, whoever answered in the end", async () => {
    const instances = await start("told", 2);
    instances.fail(0, { errorRate: 1 });
    instances.fail(1, { latency: { nanos: 50_000_000 } });
    const infos = new Set<number>();
    for (let round = 0; round < 10 && infos.size < 2; round++) {
      const events = [];
      for await (const { event } of clients.tools.callToolStream({
        call: { tool: "told.Read", input: { case: "arguments", value: { text: String(round) } } },
      })) {
        events.push(event);
      }
      expect(events.map((event) => event.case)).toEqual(["started", "result", "finished"]);
      const [started, , finished] = events;
      expect.assert(started?.case === "started" && finished?.case === "finished");
      expect(started.value).toMatchObject({ attempts: 0, source: ResultSource.UNSPECIFIED, resultCount: 0 });
      expect(started.value.duration).toBeUndefined();
      expect(finished.value).toMatchObject({
        instanceId: "told-1.0.0-1",
        source: ResultSource.BACKEND,
        resultCount: 1,
        attempts: started.value.instanceId === "told-1.0.0-1" ? 1 : 2,
      });
      expect(finished.value.duration).toBeDefined();
      infos.add(finished.value.attempts);
    }
    expect(infos).toContain(1);
  });
});

describe("retries", () => {
  test("are made for what may be repeated, and counted", async () => {
    const instances = await start("retried", 2);
    instances.fail(0, { errorRate: 1 });
    instances.fail(1, { errorRate: 1 });
    const error = await failure(read("retried"));
    expect(error.code).toBe(Code.Unavailable);
    const { reads } = await total(instances);
    expect(reads).toBe(3);
    instances.fail(1, {});
    await expect
      .poll(async () => {
        const { info } = await read("retried", {}, randomUUID());
        return info.instanceId;
      })
      .toBe("retried-1.0.0-1");
  });

  test("are not made beyond what the operator allows", async () => {
    const instances = await start("once", 2);
    instances.fail(0, { errorRate: 1 });
    instances.fail(1, { errorRate: 1 });
    await failure(read("once"));
    expect(await total(instances)).toMatchObject({ reads: 1 });
  });

  test.for(["errorRate", "resetRate", "disconnectRate"] as const)(
    "are not made of a write that may have been done: %s",
    async (fault) => {
      const service = `write-${fault.toLowerCase()}`;
      const instances = await start(service, 2);
      instances.fail(0, { [fault]: 1, afterWork: true });
      instances.fail(1, { [fault]: 1, afterWork: true });
      expect((await failure(write(service))).code).toBeOneOf([Code.Unavailable, Code.Internal]);
      expect(await total(instances)).toEqual({ reads: 0, writeCalls: 1, writes: 1 });
    },
  );

  test("are made of a write that has not reached its server", async () => {
    const instances = await start("unsent", 2);
    await instances.stop(0);
    for (let round = 0; round < 6; round++) {
      const { info } = await write("unsent");
      expect(info.instanceId).toBe("unsent-1.0.0-1");
    }
  });
});

describe("a request id", () => {
  test("stands for one outcome: one write, whatever comes after", async () => {
    const instances = await start("written");
    const requestId = randomUUID();
    const first = await write("written", { requestId });
    expect(first.info).toMatchObject({ source: ResultSource.BACKEND, attempts: 1 });
    const again = await write("written", { requestId });
    expect(again.json).toEqual(first.json);
    expect(again.info).toMatchObject({ source: ResultSource.REQUEST_ID, attempts: 0, instanceId: "" });
    instances.fail(0, { latency: { nanos: 200_000_000 } });
    const other = randomUUID();
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => write("written", { requestId: other })),
    );
    expect(new Set(answers.map(({ json }) => json["writes"])).size).toBe(1);
    expect(await total(instances)).toMatchObject({ writes: 2 });
    await instances.stop(0);
    expect((await write("written", { requestId })).json).toEqual(first.json);
  });

  test("keeps a failure with all its details, and lets what may succeed later be tried again", async () => {
    const instances = await start("refused");
    instances.fail(0, { errorRate: 1, errorCode: RpcCode.FAILED_PRECONDITION });
    const requestId = randomUUID();
    const first = await failure(write("refused", { requestId }));
    instances.fail(0, {});
    const again = await failure(write("refused", { requestId }));
    expect(again).toMatchObject({ code: Code.FailedPrecondition, rawMessage: first.rawMessage });
    expect(again.findDetails(ErrorInfoSchema)).toEqual(first.findDetails(ErrorInfoSchema));
    expect(again.findDetails(ErrorInfoSchema)[0]?.metadata).toMatchObject({ instance_id: "refused-1.0.0-0" });
    instances.fail(0, { errorRate: 1 });
    const later = randomUUID();
    expect((await failure(write("refused", { requestId: later }))).code).toBe(Code.Unavailable);
    instances.fail(0, {});
    await expect
      .poll(() =>
        write("refused", { requestId: later }).then(
          () => true,
          () => false,
        ),
      )
      .toBe(true);
  });

  test("that was used for another call is refused, at the place where it stands", async () => {
    await start("reused");
    const requestId = randomUUID();
    await write("reused", { requestId }, "one");
    const error = await failure(write("reused", { requestId }, "another"));
    expect(error.code).toBe(Code.InvalidArgument);
    expect(error.findDetails(BadRequestSchema)[0]?.fieldViolations).toMatchObject([
      { field: "call.request_id", reason: "REQUEST_ID_REUSED" },
    ]);
    const one = { tool: "reused.Write", input: { case: "arguments", value: { text: "many" } } } as const;
    for await (const { index, outcome } of clients.tools.callTools({
      calls: [one, one, one, { ...one, requestId }],
    })) {
      if (index === 3) {
        expect.assert(outcome.case === "error");
        expect(outcome.value.message).toContain("calls[3].request_id");
      } else {
        expect(outcome.case).toBe("response");
      }
    }
  });

  test("repeats a write with its id when the outcome is lost", async () => {
    const instances = await start("lost", 2);
    instances.fail(0, { disconnectRate: 1, afterWork: true });
    instances.fail(1, { disconnectRate: 1, afterWork: true });
    const error = await failure(write("lost", { requestId: randomUUID() }));
    expect(error.code).toBe(Code.Unavailable);
    expect((await total(instances)).writeCalls).toBe(3);
  });
});

describe("kept answers", () => {
  test("are given for as long as the operator says, until they are purged", async () => {
    const instances = await start("kept");
    expect((await read("kept")).info).toMatchObject({ source: ResultSource.BACKEND, attempts: 1 });
    const { info, json } = await read("kept");
    expect(info).toMatchObject({ source: ResultSource.CACHE, attempts: 0, instanceId: "", stale: false });
    expect(info.age).toBeDefined();
    expect(json).toEqual({ text: "x", instance: "kept-1.0.0-0" });
    instances.fail(0, { errorRate: 1 });
    expect((await read("kept")).info.source).toBe(ResultSource.CACHE);
    const { purged } = await clients.admin.purgeCache({ tool: "kept.examples.faults.v1.FaultService.Read" });
    expect(purged).toBe(1n);
    expect((await failure(read("kept"))).code).toBe(Code.Unavailable);
  });

  test("are never those of what has side effects", async () => {
    const instances = await start("kept-writes");
    await write("kept-writes");
    await write("kept-writes");
    expect(await total(instances)).toMatchObject({ writes: 2 });
  });

  test("are loaded once for all who ask at the same time", async () => {
    const instances = await start("kept-once");
    instances.fail(0, { latency: { nanos: 200_000_000 } });
    const answers = await Promise.all(Array.from({ length: 30 }, () => read("kept-once", {}, "together")));
    expect(answers.filter(({ info }) => info.source === ResultSource.SHARED)).toHaveLength(29);
    instances.fail(0, { errorRate: 1, errorCode: RpcCode.NOT_FOUND, latency: { nanos: 200_000_000 } });
    const errors = await Promise.all(
      Array.from({ length: 30 }, () => failure(read("kept-once", {}, "none"))),
    );
    for (const error of errors) {
      expect(error.findDetails(ErrorInfoSchema)).toHaveLength(1);
    }
    expect(await total(instances)).toMatchObject({ reads: 2 });
  });
});

describe("when a tool cannot answer", () => {
  test("its last good answer does, marked as stale", async () => {
    const instances = await start("fresh");
    const { json } = await read("fresh");
    instances.fail(0, { errorRate: 1 });
    const { json: stale, info } = await read("fresh");
    expect(stale).toEqual(json);
    expect(info).toMatchObject({ source: ResultSource.FALLBACK, stale: true, attempts: 3 });
    expect(info.age).toBeDefined();
    expect((await failure(read("fresh", {}, "never asked"))).code).toBe(Code.Unavailable);
  });

  test("a fixed answer does, but not for callers' mistakes", async () => {
    const instances = await start("fixed");
    instances.fail(0, { errorRate: 1, errorCode: RpcCode.NOT_FOUND });
    expect((await failure(read("fixed"))).code).toBe(Code.NotFound);
    instances.fail(0, { errorRate: 1, errorCode: RpcCode.INTERNAL });
    const { json, info } = await read("fixed");
    expect(json).toEqual({ text: "nothing better" });
    expect(info).toMatchObject({ source: ResultSource.FALLBACK, stale: false, attempts: 1 });
    await failure(call("fixed.Read", { nonsense: 1 }));
  });

  test("another version does, unless this one may have done it already", async () => {
    const old = await startFaultInstances({ registry: clients.registry, service: "versioned" });
    const current = await startFaultInstances({
      registry: clients.registry,
      service: "versioned",
      version: "2.0.0",
    });
    expect((await read("versioned")).json).toMatchObject({ instance: "versioned-2.0.0-0" });
    current.fail(0, { errorRate: 1, afterWork: true });
    const { json, info } = await read("versioned");
    expect(json).toMatchObject({ instance: "versioned-1.0.0-0" });
    expect(info).toMatchObject({
      source: ResultSource.FALLBACK,
      attempts: 4,
      instanceId: "versioned-1.0.0-0",
    });
    await clients.admin.resetBreaker({ name: "instance/versioned/default/2.0.0/versioned-2.0.0-0" });
    expect((await failure(write("versioned"))).code).toBe(Code.Unavailable);
    expect(await total(current)).toMatchObject({ writes: 1 });
    expect(await total(old)).toMatchObject({ writes: 0 });
    await current.stop(0);
    expect((await write("versioned")).json).toMatchObject({ instance: "versioned-1.0.0-0" });
    const requestId = randomUUID();
    const first = await write("versioned", { requestId });
    expect((await write("versioned", { requestId })).json).toEqual(first.json);
  });

  test("because nobody is there", async () => {
    const instances = await start("fixed");
    await instances.stop(0);
    expect((await read("fixed", {}, "stopped")).info.source).toBe(ResultSource.FALLBACK);
  });
});

describe("limits on tools", () => {
  test("refuse what is too much, all tools of the pattern together, and only the first pattern counts", async () => {
    await start("rated");
    await read("rated");
    await write("rated");
    const error = await failure(read("rated"));
    expect(error.code).toBe(Code.ResourceExhausted);
    expect(reasonOf(error)).toEqual(["TOOL_RATE_LIMITED"]);
    expect(error.findDetails(RetryInfoSchema)).toHaveLength(1);
    await start("overrated");
    await read("overrated");
    await read("overrated");
    await read("overrated");
  });

  test("let only so many calls run at once", async () => {
    const instances = await start("narrow");
    instances.fail(0, { latency: { nanos: 300_000_000 } });
    const calls = Promise.all(Array.from({ length: 4 }, () => read("narrow")));
    await expect.poll(async () => (await total(instances)).reads).toBe(2);
    const { limits } = await clients.admin.listLimits({});
    expect(limits.find(({ key }) => key === "narrow.*")).toMatchObject({ waiting: 2n });
    const hasty = await failure(read("narrow", { timeoutMs: 50 }));
    expect(hasty.code).toBe(Code.DeadlineExceeded);
    await calls;
    expect(await total(instances)).toMatchObject({ reads: 4 });
  });

  test("pace calls as the backend can take them", async () => {
    await start("paced");
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => read("paced")));
    const refused = outcomes.filter(({ status }) => status === "rejected");
    expect(refused.length).toBeGreaterThan(0);
    const [first] = refused;
    expect.assert(first?.status === "rejected");
    expect(reasonOf(ConnectError.from(first.reason))).toEqual(["TOOL_RATE_EXHAUSTED"]);
  });
});

describe("a call that is made twice when the first takes long", () => {
  test("is answered by the faster instance, and nothing is held against the other", async () => {
    const instances = await start("hedged", 2);
    instances.fail(0, { latency: { seconds: 5n } });
    for (let round = 0; round < 10; round++) {
      const { info } = await read("hedged", { timeoutMs: 20_000 }, String(round));
      expect(info.instanceId).toBe("hedged-1.0.0-1");
      expect(info.attempts).toBeLessThanOrEqual(2);
    }
    expect((await total(instances)).writes).toBe(0);
    const instance = await breakerOf("instance/hedged/default/1.0.0/hedged-1.0.0-0");
    expect(instance?.state ?? BreakerState.CLOSED).toBe(BreakerState.CLOSED);
  });

  test("goes to no other when there is none, and is not repeated when it must not be", async () => {
    const alone = await startFaultInstances({
      registry: clients.registry,
      service: "hedged",
      version: "2.0.0",
    });
    alone.fail(0, { latency: { nanos: 300_000_000 } });
    expect((await read("hedged")).info).toMatchObject({ attempts: 1, instanceId: "hedged-2.0.0-0" });
    expect((await write("hedged")).info).toMatchObject({ attempts: 1 });
    expect(await total(alone)).toEqual({ reads: 1, writeCalls: 1, writes: 1 });
  });
});
