import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import {
  createIdempotency,
  createMemoryIdempotencyStore,
  type IdempotencyStore,
} from "@toolplane/framework/policies";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { Idempotency } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { createIdempotentCalls } from "./idempotent-calls.ts";
import { createStage, type StageOptions } from "./test-support/stage.ts";

const requestId = "0192d3a4-0000-7000-8000-000000000000";

function sent(code: Code): ConnectError {
  const error = new ConnectError("said no", code);
  error.isWireError = true;
  return error;
}

function createIdempotentStage(options: StageOptions = {}, store?: IdempotencyStore) {
  const clock = createFakeClock();
  const idempotency = createIdempotency({ store: store ?? createMemoryIdempotencyStore({ clock }), clock });
  onTestFinished(() => idempotency.close());
  return createStage({
    idempotency: Idempotency.UNSPECIFIED,
    idempotent: createIdempotentCalls(idempotency, silentLogger),
    ...options,
  });
}

type Stage = ReturnType<typeof createStage>;

async function failOnce(stage: Stage, error: unknown): Promise<unknown> {
  const { done } = stage.call({ requestId });
  await stage.settle();
  stage.received.at(-1)?.fail(error);
  return await done.catch((reason: unknown) => reason);
}

test.for([
  ["what the tool says", sent(Code.FailedPrecondition)],
  ["an error of the application", sent(Code.Internal)],
  [
    "a result that is too large",
    new DomainError({ code: Code.ResourceExhausted, reason: "RESULT_TOO_LARGE", message: "x" }),
  ],
  [
    "a result that makes no sense",
    new DomainError({ code: Code.Internal, reason: "INVALID_RESULT", message: "x" }),
  ],
] as const)("a repetition gets the same failure, with its details: %s", async ([_, error]) => {
  const stage = createIdempotentStage();
  await failOnce(stage, error);
  const again = await stage.call({ requestId }).done.catch((reason: unknown) => reason);
  expect.assert(again instanceof ConnectError);
  expect(again.code).toBe(error instanceof DomainError ? error.init.code : error.code);
  expect(again.findDetails(ErrorInfoSchema)[0]?.metadata).toMatchObject({ instance_id: "i0" });
  expect(stage.received).toHaveLength(1);
});

test.for([
  ["a stream that was reset", new ConnectError("reset", Code.Internal)],
  ["no permission for this server", sent(Code.Unauthenticated)],
  ["a conflict", sent(Code.Aborted)],
  ["too much load", sent(Code.ResourceExhausted)],
] as const)("what may be otherwise next time is tried again: %s", async ([_, error]) => {
  const stage = createIdempotentStage({ settings: { retry: { attempts: 1 } } });
  await failOnce(stage, error);
  const { done } = stage.call({ requestId });
  await stage.settle();
  stage.received.at(-1)?.answer("done");
  expect(await done).toMatchObject({ source: ResultSource.BACKEND, attempts: 1 });
  expect(stage.received).toHaveLength(2);
});

test("a call that could not be sent leaves its id free", async () => {
  const stage = createIdempotentStage();
  stage.without.add("i0");
  await expect(stage.call({ requestId }).done).rejects.toThrow("a secret is missing");
  stage.without.clear();
  const { done } = stage.call({ requestId });
  await stage.settle();
  stage.received[0]?.answer("done");
  expect(await done).toMatchObject({ source: ResultSource.BACKEND });
});

test("what was begun is not stopped when its caller leaves, and the repetition waits for it", async () => {
  const stage = createIdempotentStage();
  const first = stage.call({ requestId });
  await stage.settle();
  first.leave();
  await stage.settle();
  await expect(first.done).rejects.toMatchObject({ code: Code.Canceled });
  expect(stage.received[0]?.signal.aborted).toBe(false);
  const second = stage.call({ requestId });
  await stage.settle();
  stage.received[0]?.answer("done");
  await stage.settle();
  expect(await second.done).toMatchObject({ source: ResultSource.REQUEST_ID, attempts: 0, instanceId: "" });
  expect(second.results).toEqual(["done"]);
  stage.expectNothingHeld();
});

test("the outcome stays when another version has become the newest, or no instance is left", async () => {
  const stage = createIdempotentStage();
  const first = stage.call({ requestId, version: "1.0.0" });
  await stage.settle();
  stage.received[0]?.answer("done");
  await first.done;
  stage.instances = [];
  const again = stage.call({ requestId, version: "2.0.0" });
  expect(await again.done).toMatchObject({ source: ResultSource.REQUEST_ID });
  expect(again.results).toEqual(["done"]);
});

test("an id that was used with other arguments is refused by the path of the field", async () => {
  const stage = createIdempotentStage();
  const first = stage.call({ requestId, input: { case: "arguments", value: { a: 1 } } });
  await stage.settle();
  stage.received[0]?.answer("done");
  await first.done;
  await expect(
    stage.call({ requestId, input: { case: "arguments", value: { a: 2 } } }).done,
  ).rejects.toMatchObject({
    init: { code: Code.InvalidArgument, fields: [{ field: "call.request_id", reason: "REQUEST_ID_REUSED" }] },
  });
});

test("two callers may use the same id", async () => {
  const stage = createIdempotentStage();
  const calls = (["key:a", "key:b"] as const).map((id) =>
    stage.call({ requestId, principal: { id, role: "caller" } }),
  );
  await stage.settle();
  expect(stage.received.map(({ principal }) => principal.id)).toEqual(["key:a", "key:b"]);
  for (const [index, one] of stage.received.entries()) {
    one.answer(index);
  }
  await Promise.all(calls.map(({ done }) => done));
  expect(calls.map(({ results }) => results)).toEqual([[0], [1]]);
});

test("when another replica has taken the work over, its outcome is what the caller gets", async () => {
  const clock = createFakeClock();
  const store = createMemoryIdempotencyStore({ clock });
  const stage = createIdempotentStage(
    {},
    {
      ...store,
      // Somebody else was faster to record an outcome of their own.
      async complete(claim, _outcome, retentionMs) {
        await store.complete(claim, { kind: "success", bytes: Buffer.from('"theirs"') }, retentionMs);
        return false;
      },
    },
  );
  const { done, results } = stage.call({ requestId });
  await stage.settle();
  stage.received[0]?.answer("mine");
  expect(await done).toMatchObject({ source: ResultSource.REQUEST_ID });
  expect(results).toEqual(["theirs"]);
});
