import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { type AdaptiveRateOptions, createAdaptiveRate } from "../policies/rate-limit/adaptive-rate.ts";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { adaptiveRate } from "./rate-limit-adaptive.ts";

/** A client of a backend that answers as each call's text says: with the code of that name, or well. */
async function openClient(options: AdaptiveRateOptions = {}) {
  const fail = (name: string) => {
    const code = Code[name as keyof typeof Code];
    if (code !== undefined) {
      throw new ConnectError("as told", code);
    }
  };
  const server = await serveSample(
    {},
    {
      echo: ({ value }) => {
        fail(value);
        return { value };
      },
      async *chat(requests) {
        for await (const { value } of requests) {
          fail(value);
          yield { value };
        }
      },
    },
  );
  const clock = createFakeClock();
  const rate = createAdaptiveRate({ clock, ...options });
  onTestFinished(() => rate.close());
  const client = createClient(
    SampleService,
    createGrpcTransport({ baseUrl: server.url, interceptors: [adaptiveRate({ rateOf: () => rate, clock })] }),
  );
  return { client, clock, rate };
}

async function* texts(...values: string[]) {
  for (const value of values) {
    yield { value };
  }
}

test("calls that succeed raise the rate, calls that wait go when their turn comes", async () => {
  const { client, clock, rate } = await openClient({ burst: 1 });
  await client.echo({ value: "x" });
  expect(rate.stats().rate).toBeCloseTo(10.1);
  const waiting = client.echo({ value: "y" });
  await expect.poll(() => rate.stats().waiting).toBe(1);
  clock.advance(100);
  expect(await waiting).toMatchObject({ value: "y" });
  expect(rate.stats()).toMatchObject({ acquired: 2, waited: 1, latencyMs: 0 });
});

test.each(["Unavailable", "ResourceExhausted", "DeadlineExceeded", "Internal", "Unknown", "DataLoss"])(
  "a call that ends with %s cuts the rate",
  async (value) => {
    const { client, rate } = await openClient();
    await expect(client.echo({ value })).rejects.toMatchObject({ code: Code[value as keyof typeof Code] });
    expect(rate.stats()).toMatchObject({ rate: 5, cuts: 1 });
  },
);

test.each(["InvalidArgument", "NotFound", "PermissionDenied", "Unauthenticated", "Aborted", "Unimplemented"])(
  "a call that ends with %s leaves the rate as it is",
  async (value) => {
    const { client, rate } = await openClient();
    await expect(client.echo({ value })).rejects.toMatchObject({ code: Code[value as keyof typeof Code] });
    expect(rate.stats()).toMatchObject({ rate: 10, cuts: 0, raises: 0 });
  },
);

test("a stream waits once and counts when it ends: well, badly, or not at all when its reader leaves", async () => {
  const { client, rate } = await openClient();
  expect(await Array.fromAsync(client.chat(texts("a", "b", "c")))).toHaveLength(3);
  expect(rate.stats()).toMatchObject({ acquired: 1, raises: 1, latencyMs: undefined });
  for await (const _ of client.count({ value: 1_000 })) {
    break;
  }
  expect(rate.stats()).toMatchObject({ acquired: 2, raises: 1, cuts: 0 });
  await expect(Array.fromAsync(client.chat(texts("a", "Unavailable")))).rejects.toThrow("as told");
  expect(rate.stats()).toMatchObject({ acquired: 3, raises: 1, cuts: 1 });
});

test("a caller that leaves gives up its place, and says nothing about the backend", async () => {
  const { client, rate } = await openClient({ burst: 1 });
  await client.echo({ value: "x" });
  const leaving = new AbortController();
  const waiting = client.echo({ value: "y" }, { signal: leaving.signal });
  await expect.poll(() => rate.stats().waiting).toBe(1);
  leaving.abort();
  await expect(waiting).rejects.toMatchObject({ code: Code.Canceled });
  expect(rate.stats()).toMatchObject({ waiting: 0, cancelled: 1, acquired: 1, cuts: 0 });
});

test("a deadline that passes in the line ends the call there", async () => {
  const { client, rate } = await openClient({ burst: 1 });
  await client.echo({ value: "x" });
  await expect(client.echo({ value: "y" }, { timeoutMs: 20 })).rejects.toMatchObject({
    code: Code.DeadlineExceeded,
  });
  expect(rate.stats()).toMatchObject({ cancelled: 1, cuts: 0 });
});

test("whoever gets no turn is told why and when to come again", async () => {
  const { client, clock, rate } = await openClient({
    burst: 1,
    maxWaiting: 1,
    initialRate: 1,
    maxWaitMs: 500,
  });
  const refusalOf = async (call: Promise<unknown>) => {
    const error = ConnectError.from(await call.catch((reason: unknown) => reason));
    return { code: error.code, reason: error.findDetails(ErrorInfoSchema)[0]?.reason };
  };
  await expect(client.echo({ value: "Unavailable" })).rejects.toThrow();
  const first = refusalOf(client.echo({ value: "x" }));
  await expect.poll(() => rate.stats().waiting).toBe(1);
  expect(await refusalOf(client.echo({ value: "x" }))).toEqual({
    code: Code.ResourceExhausted,
    reason: "ADAPTIVE_RATE_QUEUE_FULL",
  });
  clock.advance(500);
  expect(await first).toEqual({
    code: Code.ResourceExhausted,
    reason: "ADAPTIVE_RATE_WAITED_TOO_LONG",
  });
});
