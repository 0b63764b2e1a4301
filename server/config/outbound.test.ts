import { expect, test } from "vitest";
import { loadText, mistakesIn } from "./test-support/load-text.ts";

test("without a word on it, the documented policies hold", () => {
  expect(loadText("").outbound).toEqual({
    breaker: {
      consecutiveFailures: 3,
      windowMs: 60_000,
      failureRate: 0.5,
      slowCallRate: 0.8,
      slowCallMs: undefined,
      minimumCalls: 10,
      openMs: 30_000,
      maxOpenMs: 300_000,
      probes: 2,
    },
    outliers: { ejectionTimeMs: 30_000, maxEjectedPercent: 50 },
    retry: { attempts: 3, baseDelayMs: 100, maxDelayMs: 5_000, budget: 0.2 },
    deduplication: { windowMs: 60_000, maxInFlight: 1_000 },
    cache: {
      maxBytes: 104_857_600,
      maxStaleMs: 3_600_000,
      durable: false,
      staleWhileRevalidateMs: 0,
      signingKey: undefined,
    },
    tools: [],
  });
  expect(loadText("outbound: { breaker: {}, retry: {}, cache: {} }").outbound).toEqual(loadText("").outbound);
});

test("every policy can be set", () => {
  const { outbound } = loadText(`outbound:
  breaker:
    consecutive_failures: 5
    window: 10s
    failure_rate: 0.25
    slow_call_rate: 0.75
    slow_call: 1.5s
    minimum_calls: 7
    open_duration: 1s
    max_open_duration: 8s
    probes: 1
  outliers: { ejection_time: 5s, max_ejected_percent: 30 }
  retry: { attempts: 2, base_delay: 0.05s, max_delay: 1s, budget: 0.1 }
  deduplication: { window: 2s, max_in_flight: 9 }
  cache: { max_bytes: 1024, durable: true, stale_while_revalidate: 30s, max_stale: 60s, signing_key: { env: KEY } }
`);
  expect(outbound).toMatchObject({
    breaker: {
      consecutiveFailures: 5,
      windowMs: 10_000,
      failureRate: 0.25,
      slowCallRate: 0.75,
      slowCallMs: 1_500,
      minimumCalls: 7,
      openMs: 1_000,
      maxOpenMs: 8_000,
      probes: 1,
    },
    outliers: { ejectionTimeMs: 5_000, maxEjectedPercent: 30 },
    retry: { attempts: 2, baseDelayMs: 50, maxDelayMs: 1_000, budget: 0.1 },
    deduplication: { windowMs: 2_000, maxInFlight: 9 },
    cache: {
      maxBytes: 1_024,
      durable: true,
      staleWhileRevalidateMs: 30_000,
      maxStaleMs: 60_000,
      signingKey: { source: { case: "env", value: "KEY" } },
    },
  });
});

test("every policy can be taken away", () => {
  const disabled = "{ disabled: true }";
  expect(
    loadText(
      `outbound: { breaker: ${disabled}, outliers: ${disabled}, deduplication: ${disabled}, cache: ${disabled} }`,
    ).outbound,
  ).toMatchObject({ breaker: undefined, outliers: undefined, deduplication: undefined, cache: undefined });
});

test("tools have policies of their own", () => {
  const { tools } = loadText(`outbound:
  tools:
    - tool: acme.weather.*
      timeout: 2s
      retry_attempts: 1
      idempotent: true
      unshared: true
      cache_ttl: 0s
      hedge_delay: 0.2s
      rate_limit: { requests: 100, period: 1s }
      adaptive_rate: { initial: 5, min: 2, max: 50, max_wait: 3s }
      max_concurrency: 4
      last_good: 3600s
    - { tool: a, result_json: '{"ok": true}' }
    - { tool: b, version: 1.0.0 }
    - { tool: c, adaptive_rate: {} }
    - { tool: "*" }
`).outbound;
  expect(tools).toMatchObject([
    {
      tool: "acme.weather.*",
      timeoutMs: 2_000,
      retryAttempts: 1,
      idempotent: true,
      unshared: true,
      cacheTtlMs: 0,
      hedgeDelayMs: 200,
      rateLimit: { requests: 100, periodMs: 1_000, burst: 20 },
      adaptiveRate: { initial: 5, min: 2, max: 50, maxWaitMs: 3_000 },
      maxConcurrency: 4,
      fallback: { kind: "last-good", maxAgeMs: 3_600_000 },
    },
    { fallback: { kind: "result", json: '{"ok": true}' } },
    { fallback: { kind: "version", version: "1.0.0" } },
    { adaptiveRate: { initial: 10, min: 1, max: 100, maxWaitMs: 30_000 } },
    {
      tool: "*",
      timeoutMs: undefined,
      retryAttempts: undefined,
      idempotent: false,
      unshared: false,
      cacheTtlMs: undefined,
      hedgeDelayMs: undefined,
      rateLimit: undefined,
      adaptiveRate: undefined,
      maxConcurrency: undefined,
      fallback: undefined,
    },
  ]);
});

test("times that are left open make room for those that are given", () => {
  const { breaker, retry } = loadText(
    "outbound: { breaker: { open_duration: 600s }, retry: { base_delay: 20s } }",
  ).outbound;
  expect(breaker).toMatchObject({ openMs: 600_000, maxOpenMs: 600_000 });
  expect(retry).toMatchObject({ baseDelayMs: 20_000, maxDelayMs: 20_000 });
  const short = loadText(
    "outbound: { breaker: { max_open_duration: 10s }, retry: { max_delay: 0.01s } }",
  ).outbound;
  expect(short.breaker).toMatchObject({ openMs: 10_000, maxOpenMs: 10_000 });
  expect(short.retry).toMatchObject({ baseDelayMs: 10, maxDelayMs: 10 });
});

test("mistakes name their fields, all of them at once", () => {
  expect(
    mistakesIn(`outbound:
  breaker: { open_duration: 60s, max_open_duration: 30s }
  retry: { base_delay: 2s, max_delay: 1s }
  tools:
    - { tool: a, result_json: "{ok: true}" }
    - { tool: b, rate_limit: { burst: 3 } }
    - { tool: c, adaptive_rate: { min: 20, max: 10 } }
    - { tool: d, adaptive_rate: { initial: 500, max: 400 } }
    - { tool: b }
`),
  ).toEqual({
    "outbound.breaker.max_open_duration":
      "must not be shorter than outbound.breaker.open_duration, which is 60 s",
    "outbound.retry.max_delay": "must not be shorter than outbound.retry.base_delay, which is 2 s",
    "outbound.tools[0].result_json": expect.stringContaining("must be JSON"),
    "outbound.tools[1].rate_limit.requests": expect.stringContaining("must be given"),
    "outbound.tools[2].adaptive_rate.min": "must not be above max, which is 10",
    "outbound.tools[3].adaptive_rate.initial": "must be from min to max, which are 1 and 400",
    "outbound.tools[4].tool": "is what outbound.tools[1] is for: the first that matches counts",
  });
  expect(mistakesIn("outbound: { breaker: { failure_rate: 2 } }")).toHaveProperty([
    "outbound.breaker.failure_rate",
  ]);
  expect(mistakesIn('outbound: { tools: [{ tool: "" }] }')).toHaveProperty(["outbound.tools[0].tool"]);
  expect(mistakesIn("outbound: { tools: [{ tool: a, version: b, last_good: 1s }] }")).not.toEqual({});
});

test("a thousand policies of tools are read, one more is one too many", () => {
  const policies = (count: number) =>
    `outbound:\n  tools:\n${Array.from({ length: count }, (_, n) => `    - { tool: "acme.service${n}.*", timeout: ${n + 1}s }\n`).join("")}`;
  expect(loadText(policies(1_000)).outbound.tools).toHaveLength(1_000);
  expect(mistakesIn(policies(1_001))).toHaveProperty(["outbound.tools"]);
});
