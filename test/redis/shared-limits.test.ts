import { Redis } from "ioredis";
import { expect, onTestFinished, test } from "vitest";
import { redisCounters } from "../../framework/policies/rate-limit/counter-store.ts";
import { shareLimitsThroughOutage } from "../../framework/test-support/shared-limit-scenario.ts";
import { startRedis } from "./redis-server.ts";

test("two processes share one limit in Redis, each limits by itself while it is down, and they share again", async () => {
  const redis = await startRedis();
  await shareLimitsThroughOutage({ kind: "redis", ...redis });
});

test("a window lasts as many milliseconds as it should, and its key goes with it", async () => {
  const redis = await startRedis();
  const client = new Redis(redis.url);
  onTestFinished(() => client.disconnect());
  await client.ping();
  const counter = redisCounters({ client, prefix: "test" }).counter("caller", { points: 2, windowMs: 1_200 });
  expect(await counter.consume("ada")).toMatchObject({ allowed: true, remaining: 1 });
  const ttl = await client.pttl("test:caller:ada");
  expect(ttl).toBeGreaterThan(0);
  expect(ttl).toBeLessThanOrEqual(1_200);
  expect(await counter.consume("ada")).toMatchObject({ allowed: true, remaining: 0 });
  expect(await counter.consume("ada")).toMatchObject({ allowed: false });
  await expect.poll(() => client.exists("test:caller:ada")).toBe(0);
  expect(await counter.consume("ada")).toMatchObject({ allowed: true, remaining: 1 });
});

test("a client that others limit with keeps their script", async () => {
  const redis = await startRedis();
  const client = new Redis(redis.url);
  onTestFinished(() => client.disconnect());
  await client.ping();
  client.defineCommand("rlflxIncr", { numberOfKeys: 1, lua: "return 'theirs'" });
  const counter = redisCounters({ client }).counter("caller", { points: 1, windowMs: 60_000 });
  expect(await counter.consume("ada")).toMatchObject({ allowed: true });
  expect(await (client as unknown as { rlflxIncr(key: string): Promise<string> }).rlflxIncr("x")).toBe(
    "theirs",
  );
});
