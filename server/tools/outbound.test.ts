import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError, type Principal } from "@toolplane/framework";
import { HedgeLostError } from "@toolplane/framework/policies";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { Idempotency, Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createStage, type StageOptions } from "./test-support/stage.ts";

const unavailable = () => new ConnectError("down", Code.Unavailable);
const seconds = (count: number) => ({ seconds: BigInt(count) });
const milliseconds = (ms: number) => ({ nanos: ms * 1_000_000 });

async function failure(work: Promise<unknown>): Promise<ConnectError | DomainError> {
  const error = await work.then(
    () => expect.unreachable("it did not fail"),
    (reason: unknown) => reason,
  );
  expect.assert(error instanceof ConnectError || error instanceof DomainError);
  return error;
}

function infoOf(error: ConnectError | DomainError) {
  return error instanceof DomainError
    ? { reason: error.init.reason, metadata: error.init.metadata }
    : error.findDetails(ErrorInfoSchema)[0];
}

describe("a call", () => {
  test("is answered, and says by whom", async () => {
    const { call, received, settle, ends, expectNothingHeld } = createStage();
    const { events, results, done } = call();
    await settle();
    expect(events).toMatchObject([{ kind: "started", instanceId: "i0" }]);
    received[0]?.answer("yes");
    expect(await done).toMatchObject({ instanceId: "i0", attempts: 1, source: ResultSource.BACKEND });
    expect(results).toEqual(["yes"]);
    expect(ends).toMatchObject([{ code: "ok", attempts: 1, hedges: 0 }]);
    expect(received[0]?.signal.aborted).toBe(false);
    expectNothingHeld();
  });

  test("fails with the instance in its error, also where the error is our own", async () => {
    const stage = createStage();
    const first = stage.call();
    await stage.settle();
    stage.received[0]?.fail(new ConnectError("no", Code.NotFound));
    expect(infoOf(await failure(first.done))).toMatchObject({
      reason: "BACKEND_ERROR",
      metadata: { instance_id: "i0" },
    });
    const second = stage.call();
    await stage.settle();
    stage.received[1]?.fail(
      new DomainError({ code: Code.Internal, reason: "INVALID_RESULT", message: "what is this?" }),
    );
    expect(infoOf(await failure(second.done))).toMatchObject({
      reason: "INVALID_RESULT",
      metadata: { instance_id: "i0" },
    });
    expect(stage.ends.map(({ code }) => code)).toEqual(["not_found", "internal"]);
    stage.expectNothingHeld();
  });

  test("whose caller has left is cancelled at its backend, and nobody is to blame", async () => {
    const stage = createStage();
    const { leave, done } = stage.call();
    await stage.settle();
    leave();
    expect(await failure(done)).toMatchObject({ code: Code.Canceled });
    await stage.settle();
    expect(stage.received[0]?.signal.reason).toMatchObject({ code: Code.Canceled });
    expect(stage.outbound.breakers?.list().map(({ consecutiveFailures }) => consecutiveFailures)).toEqual([
      0, 0, 0,
    ]);
    stage.expectNothingHeld();
  });

  test("whose reader stops at the start is cancelled", async () => {
    const stage = createStage();
    const { done } = stage.call({ take: 1 });
    await stage.settle();
    await failure(done).catch(() => undefined);
    await stage.settle();
    expect(stage.received[0]?.signal.aborted).toBe(true);
    expect(stage.ends).toMatchObject([{ code: "canceled" }]);
    stage.expectNothingHeld();
  });

  test("of a service without instances fails, unless there is another answer", async () => {
    const stage = createStage({ instances: 0 });
    expect(infoOf(await failure(stage.call().done))?.reason).toBe("NO_INSTANCE");
    const fixed = createStage({
      instances: 0,
      settings: { tools: [{ tool: "*", fallback: { case: "resultJson", value: '"better than nothing"' } }] },
    });
    const { results, done } = fixed.call();
    expect(await done).toMatchObject({ source: ResultSource.FALLBACK, attempts: 0 });
    expect(results).toEqual(["better than nothing"]);
    stage.expectNothingHeld();
    fixed.expectNothingHeld();
  });

  test("that cannot be made for want of a secret holds nothing, not even the place of a probe", async () => {
    const stage = createStage({ idempotency: Idempotency.UNSPECIFIED });
    for (let round = 0; round < 3; round++) {
      const { done } = stage.call();
      await stage.settle();
      stage.received.at(-1)?.fail(unavailable());
      await failure(done);
    }
    await stage.pass(30_000);
    stage.without.add("i0");
    for (let round = 0; round < 5; round++) {
      await expect(stage.call().done).rejects.toThrow("a secret is missing");
    }
    stage.without.clear();
    for (let probe = 0; probe < 2; probe++) {
      const { done } = stage.call();
      await stage.settle();
      stage.received.at(-1)?.answer(probe);
      await done;
    }
    expect(stage.outbound.breakers?.list().map(({ state }) => state.kind)).toEqual([
      "closed",
      "closed",
      "closed",
    ]);
    stage.expectNothingHeld();
  });
});

describe("attempts", () => {
  test("go to instances that were not tried, and to those that were when there are no others", async () => {
    const stage = createStage({ instances: 2 });
    const { done } = stage.call();
    for (let attempt = 0; attempt < 3; attempt++) {
      await stage.pass(200);
      stage.received[attempt]?.fail(unavailable());
    }
    await failure(done);
    const asked = stage.received.map(({ instance }) => instance);
    expect(asked).toHaveLength(3);
    expect(new Set(asked.slice(0, 2)).size).toBe(2);
    expect(stage.ends).toMatchObject([{ code: "unavailable", attempts: 3 }]);
    stage.expectNothingHeld();
  });

  test("end with the last failure, not with the refusal of a breaker that has opened meanwhile", async () => {
    const stage = createStage({ settings: { retry: { attempts: 5 } } });
    const { done } = stage.call();
    for (let attempt = 0; attempt < 3; attempt++) {
      await stage.pass(200);
      stage.received[attempt]?.fail(unavailable());
    }
    await stage.pass(1_000);
    expect(infoOf(await failure(done))?.reason).toBe("BACKEND_ERROR");
    expect(stage.received).toHaveLength(3);
    stage.expectNothingHeld();
  });

  test("do not go back to an instance that is left out as long as another is there", async () => {
    const stage = createStage({ instances: 2, idempotency: Idempotency.UNSPECIFIED });
    // One of the two fails until it is ejected.
    for (let round = 0; round < 12; round++) {
      const { done } = stage.call();
      await stage.settle();
      const last = stage.received.at(-1);
      if (last?.instance === "i0") {
        last.fail(new ConnectError("x", Code.Internal));
      } else {
        last?.answer(1);
      }
      await done.catch(() => undefined);
    }
    const [ejected] = stage.outbound.outliers?.list() ?? [];
    if (ejected?.state.kind === "ejected") {
      const { done } = stage.call();
      await stage.settle();
      expect(stage.received.at(-1)?.instance).not.toBe(ejected.instance);
      stage.received.at(-1)?.answer(1);
      await done;
    }
    stage.expectNothingHeld();
  });

  test("are not made after the caller has left, or its time is up", async () => {
    const stage = createStage();
    const leaving = stage.call();
    const hasty = stage.call({ timeout: milliseconds(30) });
    await stage.settle();
    for (const one of stage.received) {
      one.fail(unavailable());
    }
    leaving.leave();
    await stage.pass(1_000);
    await failure(leaving.done);
    await failure(hasty.done);
    stage.expectNothingHeld();
  });

  test("wait as long as the backend asks for, and are not made when it asks for none", async () => {
    const stage = createStage();
    const patient = stage.call();
    await stage.settle();
    stage.received[0]?.fail(new ConnectError("later", Code.Unavailable, { "grpc-retry-pushback-ms": "700" }));
    await stage.pass(690);
    expect(stage.received).toHaveLength(1);
    await stage.pass(200);
    stage.received[1]?.fail(new ConnectError("never", Code.Unavailable, { "grpc-retry-pushback-ms": "-1" }));
    expect(await failure(patient.done)).toMatchObject({ code: Code.Unavailable, rawMessage: "never" });
    expect(stage.received).toHaveLength(2);
    stage.expectNothingHeld();
  });

  test("beyond the first are a share of the calls", async () => {
    const stage = createStage({
      settings: {
        breaker: { disabled: true },
        outliers: { disabled: true },
        deduplication: { disabled: true },
      },
    });
    const calls = Array.from({ length: 100 }, () => stage.call());
    const failed = new Set();
    for (let round = 0; round < 3; round++) {
      await stage.settle();
      for (const one of stage.received) {
        if (!failed.has(one)) {
          failed.add(one);
          one.fail(unavailable());
        }
      }
      await stage.pass(500);
    }
    await Promise.all(calls.map(({ done }) => failure(done)));
    // 20 % of the calls, and 3 in each of the 10 s that the budget looks back on.
    expect(stage.received).toHaveLength(150);
    stage.expectNothingHeld();
  });

  test("are not begun by a call whose turn comes after its deadline", async () => {
    const stage = createStage({
      settings: { tools: [{ tool: "*", maxConcurrency: 1, unshared: true }] },
    });
    const first = stage.call({ timeout: seconds(5) });
    const second = stage.call({ timeout: seconds(1) });
    await stage.pass(1_500);
    expect(await failure(second.done)).toMatchObject({ code: Code.DeadlineExceeded });
    stage.received[0]?.answer(1);
    await first.done;
    expect(stage.received).toHaveLength(1);
    stage.expectNothingHeld();
  });
});

describe("calls of a tool that hangs", () => {
  const hang = async (stage: ReturnType<typeof createStage>, ms: number) => {
    const { done } = stage.call({
      timeout: { seconds: BigInt(Math.floor(ms / 1_000)), nanos: (ms % 1_000) * 1e6 },
    });
    await stage.pass(ms);
    expect(await failure(done)).toMatchObject({ code: Code.DeadlineExceeded });
  };
  const openBreakers = (stage: ReturnType<typeof createStage>) =>
    stage.outbound.breakers
      ?.list()
      .flatMap(({ name, state }) => (state.kind === "open" ? [name.split("/")[0]] : []));

  test("count for nobody when the caller was in a hurry", async () => {
    const stage = createStage();
    for (let round = 0; round < 5; round++) {
      await hang(stage, 500);
    }
    expect(openBreakers(stage)).toEqual([]);
    stage.expectNothingHeld();
  });

  test("count for the tool alone as long as nobody knows how long it takes, and then for all", async () => {
    const unknown = createStage();
    const known = createStage();
    const { done } = known.call();
    await known.settle();
    known.received[0]?.answer(1);
    await done;
    for (let round = 0; round < 3; round++) {
      await hang(unknown, 1_200);
      await hang(known, 1_200);
    }
    expect(openBreakers(unknown)).toEqual(["method"]);
    expect(openBreakers(known)?.toSorted()).toEqual(["instance", "method", "service"]);
    unknown.expectNothingHeld();
    known.expectNothingHeld();
  });
});

describe("a stream", () => {
  const streaming: StageOptions = { streaming: Streaming.SERVER, instances: 2 };

  test("is tried again before its first message, and not after it", async () => {
    const stage = createStage(streaming);
    const { results, done } = stage.call();
    await stage.settle();
    stage.received[0]?.fail(unavailable());
    await stage.pass(200);
    expect(stage.received).toHaveLength(2);
    stage.received[1]?.answer(1);
    stage.received[1]?.answer(2);
    await stage.settle();
    stage.received[1]?.fail(unavailable());
    expect(await failure(done)).toMatchObject({ code: Code.Unavailable });
    expect(results).toEqual([1, 2]);
    expect(stage.received).toHaveLength(2);
    stage.expectNothingHeld();
  });

  test("keeps its place among the calls at once until it ends, however it ends", async () => {
    const stage = createStage({ ...streaming, settings: { tools: [{ tool: "*", maxConcurrency: 1 }] } });
    const endings: ((index: number, call: ReturnType<typeof stage.call>) => void)[] = [
      (index) => stage.received[index]?.end(),
      (index) => stage.received[index]?.fail(new ConnectError("x", Code.DataLoss)),
      (_, { leave }) => leave(),
    ];
    const calls = endings.map(() => stage.call());
    for (const [index, end] of endings.entries()) {
      await stage.settle();
      expect(stage.received).toHaveLength(index + 1);
      stage.received[index]?.answer(index);
      await stage.settle();
      const one = calls[index];
      expect.assert(one !== undefined);
      end(index, one);
      await one.done.catch(() => undefined);
    }
    await stage.settle();
    stage.expectNothingHeld();
  });

  test("that is quiet for long hangs for nobody, and its deadline is nobody's fault", async () => {
    const stage = createStage(streaming);
    for (let round = 0; round < 6; round++) {
      const { done } = stage.call();
      await stage.settle();
      stage.received.at(-1)?.answer(1);
      stage.received.at(-1)?.end();
      await done;
    }
    const quiet = Array.from({ length: 6 }, () => stage.call());
    await stage.pass(9_900);
    for (const one of stage.received.slice(6)) {
      expect(one.signal.aborted).toBe(false);
    }
    await stage.pass(200);
    for (const { done } of quiet) {
      expect(await failure(done)).toMatchObject({ code: Code.DeadlineExceeded });
    }
    expect(stage.outbound.breakers?.list().every(({ state }) => state.kind === "closed")).toBe(true);
    expect(stage.outbound.outliers?.total).toBe(0);
    stage.expectNothingHeld();
  });

  test("that nobody reads to its end is no failure of its instance", async () => {
    const stage = createStage({ streaming: Streaming.SERVER });
    for (let round = 0; round < 5; round++) {
      const { results } = stage.call({ take: 2 });
      await stage.settle();
      stage.received.at(-1)?.answer(round);
      await stage.settle();
      expect(results).toEqual([round]);
      expect(stage.received.at(-1)?.signal.aborted).toBe(true);
    }
    expect(stage.outbound.breakers?.list().map(({ window }) => window)).toEqual(
      Array.from({ length: 3 }, () => ({ calls: 5, failures: 0, slowCalls: 0 })),
    );
    stage.expectNothingHeld();
  });

  test("takes no request id, nor a message where all results have to go into one", async () => {
    const stage = createStage(streaming);
    const withId = await failure(stage.call({ requestId: "0192d3a4-0000-7000-8000-000000000000" }).done);
    expect(withId).toMatchObject({
      init: { fields: [{ field: "call.request_id", reason: "STREAMING_TOOL" }] },
    });
    const typed = stage.call({ gathers: true, input: { case: "message", value: {} } });
    expect(await failure(typed.done)).toMatchObject({ init: { fields: [{ field: "call.message" }] } });
    expect(stage.received).toEqual([]);
    stage.expectNothingHeld();
  });
});

describe("a call that is made a second time beside the first", () => {
  const settings: StageOptions["settings"] = { tools: [{ tool: "*", hedgeDelay: milliseconds(100) }] };

  test("goes to another instance, and the slower one is cancelled and not blamed", async () => {
    const stage = createStage({ instances: 2, settings });
    const { done } = stage.call();
    await stage.pass(150);
    expect(stage.received).toHaveLength(2);
    const [first, second] = stage.received;
    expect(second?.instance).not.toBe(first?.instance);
    second?.answer("fast");
    expect(await done).toMatchObject({ attempts: 2, instanceId: second?.instance });
    await stage.settle();
    expect(first?.signal.reason).toBeInstanceOf(HedgeLostError);
    expect(second?.signal.aborted).toBe(false);
    expect(stage.ends).toMatchObject([{ attempts: 1, hedges: 1 }]);
    stage.expectNothingHeld();
  });

  test("is not made when all instances are busy with it, and the first goes on", async () => {
    const stage = createStage({ instances: 1, settings });
    const { done } = stage.call();
    await stage.pass(500);
    expect(stage.received).toHaveLength(1);
    stage.received[0]?.answer("slow");
    expect(await done).toMatchObject({ attempts: 1 });
    stage.expectNothingHeld();
  });

  test("is not made by what must not be repeated", async () => {
    const stage = createStage({ instances: 2, settings, idempotency: Idempotency.UNSPECIFIED });
    const { done } = stage.call();
    await stage.pass(500);
    expect(stage.received).toHaveLength(1);
    stage.received[0]?.answer("slow");
    await done;
    stage.expectNothingHeld();
  });

  test("does not leave a stream behind that begins at the same moment", async () => {
    const stage = createStage({ instances: 2, settings, streaming: Streaming.SERVER });
    const { done, results } = stage.call();
    await stage.pass(150);
    for (const one of stage.received) {
      one.answer(one.instance);
    }
    await stage.settle();
    expect(results).toHaveLength(1);
    expect(stage.received.map(({ signal }) => signal.aborted).toSorted()).toEqual([false, true]);
    stage.received.find(({ signal }) => !signal.aborted)?.end();
    await done;
    await stage.settle();
    stage.expectNothingHeld();
  });
});

describe("identical calls", () => {
  test("share one, which is cancelled when the last of them leaves", async () => {
    const stage = createStage();
    const calls = Array.from({ length: 3 }, () => stage.call());
    await stage.settle();
    expect(stage.received).toHaveLength(1);
    for (const { leave } of calls.slice(0, 2)) {
      leave();
    }
    await stage.settle();
    expect(stage.received[0]?.signal.aborted).toBe(false);
    calls[2]?.leave();
    await stage.settle();
    expect(stage.received[0]?.signal.reason).toMatchObject({ code: Code.Canceled });
    for (const { done } of calls) {
      expect(await failure(done)).toMatchObject({ code: Code.Canceled });
    }
    stage.expectNothingHeld();
  });

  test("with more time get it made once more when the first had too little", async () => {
    const stage = createStage();
    const hasty = stage.call({ timeout: seconds(1) });
    await stage.settle();
    const patient = [stage.call({ timeout: seconds(5) }), stage.call({ timeout: seconds(5) })];
    await stage.pass(900);
    stage.received[0]?.fail(new ConnectError("time is up", Code.DeadlineExceeded));
    expect(await failure(hasty.done)).toMatchObject({ code: Code.DeadlineExceeded });
    await stage.settle();
    expect(stage.received).toHaveLength(2);
    expect(stage.received[1]?.timeoutMs).toBeGreaterThan(3_000);
    stage.received[1]?.answer("in time");
    const ends = await Promise.all(patient.map(({ done }) => done));
    expect(ends.map(({ source }) => source).toSorted()).toEqual([ResultSource.BACKEND, ResultSource.SHARED]);
    stage.expectNothingHeld();
  });

  test("of two principals are two, and so are those of one name in two roles", async () => {
    const stage = createStage({ cacheTtlMs: 60_000 });
    const principal = (id: string, role: Principal["role"]): Principal => ({
      ...({} as Principal),
      id,
      role,
    });
    const calls = [
      stage.call({ principal: principal("key:a", "caller") }),
      stage.call({ principal: principal("key:b", "caller") }),
      stage.call({ principal: principal("key:a", "operator") }),
    ];
    await stage.settle();
    expect(stage.received.map(({ principal: { id, role } }) => [id, role])).toEqual([
      ["key:a", "caller"],
      ["key:b", "caller"],
      ["key:a", "operator"],
    ]);
    for (const [index, one] of stage.received.entries()) {
      one.answer(index);
    }
    await Promise.all(calls.map(({ done }) => done));
    expect(calls.map(({ results }) => results)).toEqual([[0], [1], [2]]);
    stage.expectNothingHeld();
  });
});

describe("a kept answer", () => {
  test("is renewed for no longer than the tool's own time", async () => {
    const stage = createStage({ cacheTtlMs: 500, staleWhileRevalidateMs: 60_000 });
    const first = stage.call();
    await stage.settle();
    stage.received[0]?.answer("old");
    await first.done;
    await stage.pass(1_000);
    await stage.call().done;
    await stage.settle();
    expect(stage.received).toHaveLength(2);
    await stage.pass(10_000);
    stage.expectNothingHeld();
  });

  test("is renewed in the background for nobody in particular", async () => {
    const stage = createStage({ cacheTtlMs: 1_000, staleWhileRevalidateMs: 60_000 });
    const first = stage.call();
    await stage.settle();
    stage.received[0]?.answer("old");
    await first.done;
    await stage.pass(1_500);
    const kept = stage.call({ timeout: milliseconds(100) });
    expect(await kept.done).toMatchObject({
      source: ResultSource.CACHE,
      attempts: 0,
      instanceId: "",
      ageMs: 1_500,
      stale: true,
    });
    expect(kept.events[0]).toMatchObject({ kind: "started", instanceId: "" });
    expect(kept.results).toEqual(["old"]);
    await stage.settle();
    // It has the tool's own time, not what its caller had left.
    expect(stage.received[1]?.timeoutMs).toBe(10_000);
    stage.received[1]?.answer("new");
    await stage.settle();
    const renewed = stage.call();
    expect(await renewed.done).toMatchObject({ source: ResultSource.CACHE, ageMs: 0, stale: false });
    expect(renewed.results).toEqual(["new"]);
    stage.expectNothingHeld();
  });

  test("is the answer of a tool that cannot give a better one", async () => {
    const stage = createStage({ cacheTtlMs: 1_000, settings: { retry: { attempts: 1 } } });
    const first = stage.call();
    await stage.settle();
    stage.received[0]?.answer("old");
    await first.done;
    await stage.pass(5_000);
    const { done, results } = stage.call();
    await stage.settle();
    stage.received[1]?.fail(unavailable());
    expect(await done).toMatchObject({
      source: ResultSource.FALLBACK,
      attempts: 1,
      ageMs: 5_000,
      stale: true,
    });
    expect(results).toEqual(["old"]);
    stage.expectNothingHeld();
  });

  test("that has an error for all is each caller's own", async () => {
    const stage = createStage({ cacheTtlMs: 1_000 });
    const calls = [stage.call(), stage.call()];
    await stage.settle();
    expect(stage.received).toHaveLength(1);
    stage.received[0]?.fail(new ConnectError("no", Code.NotFound));
    const [one, other] = await Promise.all(calls.map(({ done }) => failure(done)));
    expect(one).not.toBe(other);
    expect(infoOf(other ?? expect.unreachable())).toMatchObject({ metadata: { instance_id: "i0" } });
    stage.expectNothingHeld();
  });
});

test("whatever happens in whatever order, nothing is held in the end", async () => {
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant("call" as const),
        what: fc.nat(2),
        ms: fc.constantFrom(50, 700, 3_000),
      }),
    },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("answer" as const), which: fc.nat(9) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("end" as const), which: fc.nat(9) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant("fail" as const),
        which: fc.nat(9),
        code: fc.constantFrom(Code.Unavailable, Code.Internal, Code.NotFound, Code.DeadlineExceeded),
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("leave" as const), which: fc.nat(9) }) },
    {
      weight: 3,
      arbitrary: fc.record({ do: fc.constant("pass" as const), ms: fc.constantFrom(20, 150, 1_000) }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("scale" as const), count: fc.nat(3) }) },
  );
  const stages = fc.record({
    streaming: fc.constantFrom(Streaming.UNARY, Streaming.SERVER, Streaming.BIDI, Streaming.CLIENT),
    idempotency: fc.constantFrom(Idempotency.NO_SIDE_EFFECTS, Idempotency.UNSPECIFIED),
    cacheTtlMs: fc.constantFrom(0, 500),
    hedge: fc.boolean(),
    narrow: fc.boolean(),
    paced: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(stages, fc.array(step, { maxLength: 40, size: "max" }), async (kind, steps) => {
      const { hedge, narrow, paced, ...options } = kind;
      const stage = createStage({
        ...options,
        staleWhileRevalidateMs: 1_000,
        instances: 3,
        settings: {
          breaker: { openDuration: milliseconds(500) },
          outliers: { ejectionTime: milliseconds(500) },
          tools: [
            {
              tool: "*",
              ...(hedge && { hedgeDelay: milliseconds(100) }),
              ...(narrow && { maxConcurrency: 2 }),
              ...(paced && { adaptiveRate: { initial: 5, maxWait: milliseconds(300) } }),
            },
          ],
        },
      });
      const calls: ReturnType<typeof stage.call>[] = [];
      const pick = <T>(items: readonly T[], which: number): T | undefined => items[items.length - 1 - which];
      for (const one of steps) {
        switch (one.do) {
          case "call":
            calls.push(
              stage.call({
                timeout: { seconds: BigInt(Math.floor(one.ms / 1_000)), nanos: (one.ms % 1_000) * 1e6 },
                input: { case: "arguments", value: { what: one.what } },
              }),
            );
            break;
          case "answer":
            pick(stage.received, one.which)?.answer(one.which);
            break;
          case "end":
            pick(stage.received, one.which)?.end();
            break;
          case "fail":
            pick(stage.received, one.which)?.fail(new ConnectError("x", one.code));
            break;
          case "leave":
            pick(calls, one.which)?.leave();
            break;
          case "pass":
            await stage.pass(one.ms);
            break;
          case "scale":
            stage.instances = Array.from({ length: one.count }, (_, index) => `i${index}`);
        }
        await stage.settle();
      }
      // A renewal in the background has the tool's own time.
      await stage.pass(11_000);
      for (const { done, events } of calls) {
        await done.catch(() => undefined);
        expect(events.filter(({ kind }) => kind === "started").length).toBeLessThanOrEqual(1);
      }
      await stage.settle();
      stage.expectNothingHeld();
      expect(stage.ends.length).toBeLessThanOrEqual(calls.length);
    }),
    { numRuns: 150 },
  );
});
