import { Code, ConnectError, createClient, type ServiceImpl } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import type { HedgeEvent } from "../policies/hedge/hedger.ts";
import { createRetryBudget } from "../policies/retry/retry-budget.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { type HedgeOptions, hedge } from "./hedge.ts";
import { retry } from "./retry.ts";

async function setUp(implementation: Partial<ServiceImpl<typeof SampleService>>, options: HedgeOptions = {}) {
  const server = await serveSample({}, implementation);
  const events: HedgeEvent[] = [];
  const interceptors = [hedge({ delayMs: 20, onEvent: (event) => events.push(event), ...options })];
  const transport = createGrpcTransport({ baseUrl: server.url, interceptors });
  return { events, server, client: createClient(SampleService, transport) };
}

test("the first call to be answered counts, and the server learns that the other one is not needed", async () => {
  const cancelled: (string | null)[] = [];
  const { client, events } = await setUp({
    async echo(request, { requestHeader, signal }) {
      const previous = requestHeader.get("grpc-previous-rpc-attempts");
      if (previous === null) {
        await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
        cancelled.push(previous);
      }
      return request;
    },
  });
  await expect(client.echo({ value: "a" })).resolves.toMatchObject({ value: "a" });
  await expect.poll(() => cancelled).toEqual([null]);
  expect(events).toMatchObject([
    { kind: "hedged", attempt: 2 },
    { kind: "won", attempt: 2, cancelled: 1 },
  ]);
});

test("a call that may have side effects is sent once", async () => {
  let calls = 0;
  const { client, events } = await setUp(
    {
      measure() {
        calls += 1;
        return { value: 1 };
      },
    },
    { delayMs: 0 },
  );
  await client.measure({});
  expect(calls).toBe(1);
  expect(events).toEqual([]);
});

test("streams pass as they are", async () => {
  const { client, events } = await setUp({}, { delayMs: 0 });
  const numbers = await Array.fromAsync(client.count({ value: 3 }), ({ value }) => value);
  expect(numbers).toEqual([1, 2, 3]);
  expect(events).toEqual([]);
});

test("a caller that leaves cancels every attempt", async () => {
  let begun = 0;
  let cancelled = 0;
  const { client } = await setUp({
    async echo(request, { signal }) {
      begun += 1;
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      cancelled += 1;
      return request;
    },
  });
  const caller = new AbortController();
  const result = client.echo({ value: "a" }, { signal: caller.signal });
  result.catch(() => {});
  await expect.poll(() => begun).toBe(2);
  caller.abort();
  await expect(result).rejects.toMatchObject({ code: Code.Canceled });
  await expect.poll(() => cancelled).toBe(2);
});

test("hedges and retries spend one budget", async () => {
  let attempts = 0;
  const server = await serveSample(
    {},
    {
      echo() {
        attempts += 1;
        throw new ConnectError("not now", Code.Unavailable);
      },
    },
  );
  const budget = createRetryBudget({ minPerSecond: 0 });
  const interceptors = [retry({ budget, baseDelayMs: 1 }), hedge({ budget, delayMs: 1_000 })];
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url, interceptors }));
  await Promise.allSettled(Array.from({ length: 100 }, () => client.echo({ value: "a" })));
  expect(attempts).toBe(120);
  expect(budget.stats()).toMatchObject({ calls: 100, retries: 20 });
});
