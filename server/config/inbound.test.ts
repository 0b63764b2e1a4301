import { expect, test } from "vitest";
import { loadText, mistakesIn } from "./test-support/load-text.ts";

const TESTS = "toolplane.testing.v1.TestRunService";
const TOOLS = "toolplane.tools.v1.ToolService";

test("without a word on it, the documented limits hold", () => {
  const minute = { periodMs: 60_000, burst: 20 };
  expect(loadText("").inbound).toEqual({
    global: { requests: 1_000, ...minute },
    perService: undefined,
    perCaller: { requests: 600, ...minute },
    services: new Map([[TESTS, { requests: 200, ...minute }]]),
    callers: new Map(),
    methods: new Map(),
    concurrency: { initial: 100, min: 20, max: 1_000 },
    idempotencyRetentionMs: 86_400_000,
  });
  expect(loadText("inbound: {}").inbound).toEqual(loadText("").inbound);
});

test("every limit can be set", () => {
  const { inbound } = loadText(`inbound:
  global: { requests: 5000, period: 1s, burst: 100 }
  per_service: { requests: 300 }
  per_caller: { requests: 10, period: 2s }
`);
  expect(inbound).toMatchObject({
    global: { requests: 5_000, periodMs: 1_000, burst: 100 },
    perService: { requests: 300, periodMs: 60_000, burst: 20 },
    perCaller: { requests: 10, periodMs: 2_000, burst: 10 },
  });
  expect(
    loadText("inbound: { concurrency: { initial: 5, min: 2, max: 9 }, idempotency_retention: 3600s }")
      .inbound,
  ).toMatchObject({ concurrency: { initial: 5, min: 2, max: 9 }, idempotencyRetentionMs: 3_600_000 });
});

test("single methods are protected as it is said", () => {
  const list = "toolplane.registry.v1.RegistryService/ListServices";
  const { inbound } = loadText(`inbound:
  methods:
    ${list}: { rate_limit: { requests: 30 }, max_concurrency: 2, timeout: 5s }
    ${TOOLS}/CallTool: { rate_limit: { unlimited: true } }
`);
  expect(inbound.methods).toEqual(
    new Map([
      [
        list,
        {
          rateLimit: { requests: 30, periodMs: 60_000, burst: 20 },
          maxConcurrency: 2,
          timeoutMs: 5_000,
        },
      ],
      [`${TOOLS}/CallTool`, { rateLimit: false, maxConcurrency: undefined, timeoutMs: undefined }],
    ]),
  );
});

test("limits are taken away everywhere or for some", () => {
  const { inbound } = loadText(`inbound:
  global: { unlimited: true }
  per_caller: { unlimited: true }
  services: { ${TESTS}: { unlimited: true } }
  callers: { "key:ci": { unlimited: true } }
  concurrency: { disabled: true }
`);
  expect(inbound).toMatchObject({
    global: undefined,
    perCaller: undefined,
    services: new Map([[TESTS, undefined]]),
    callers: new Map([["key:ci", undefined]]),
    concurrency: undefined,
  });
});

test("what a single limit leaves open is as with all of its kind", () => {
  const { inbound } = loadText(`inbound:
  per_service: { requests: 300, period: 10s }
  services: { ${TESTS}: { burst: 5 }, ${TOOLS}: { burst: 6 } }
  callers: { "key:ci": { burst: 7 } }
`);
  expect(inbound.services).toEqual(
    new Map([
      [TESTS, { requests: 200, periodMs: 60_000, burst: 5 }],
      [TOOLS, { requests: 300, periodMs: 10_000, burst: 6 }],
    ]),
  );
  expect(inbound.callers).toEqual(new Map([["key:ci", { requests: 600, periodMs: 60_000, burst: 7 }]]));
});

test("bounds of the concurrency that are left open make room for those that are given", () => {
  const bounds = (text: string) => loadText(`inbound: { concurrency: ${text} }`).inbound.concurrency;
  expect(bounds("{ max: 50 }")).toEqual({ initial: 50, min: 20, max: 50 });
  expect(bounds("{ max: 5 }")).toEqual({ initial: 5, min: 5, max: 5 });
  expect(bounds("{ min: 500 }")).toEqual({ initial: 500, min: 500, max: 1_000 });
  expect(bounds("{ initial: 5000 }")).toEqual({ initial: 5_000, min: 20, max: 5_000 });
  expect(bounds("{ initial: 3 }")).toEqual({ initial: 3, min: 3, max: 1_000 });
});

test("mistakes name their fields, all of them at once", () => {
  expect(
    mistakesIn(`inbound:
  global: { requests: 1000000000, period: 1s }
  per_service: { burst: 3 }
  services: { ${TOOLS}: { burst: 3 } }
  callers: { "key:ci": { requests: 6000000, period: 1s } }
  concurrency: { min: 30, max: 20 }
`),
  ).toEqual({
    "inbound.global.requests": expect.stringContaining("5,000,000 a second"),
    "inbound.per_service.requests": expect.stringContaining("must be given"),
    [`inbound.services["${TOOLS}"].requests`]: expect.stringContaining("must be given"),
    'inbound.callers["key:ci"].requests': expect.stringContaining("5,000,000 a second"),
    "inbound.concurrency.min": "must not be above max, which is 20",
  });
  expect(mistakesIn("inbound: { concurrency: { initial: 3, min: 10 } }")).toEqual({
    "inbound.concurrency.initial": "must be from min to max, which are 10 and 1000",
  });
  expect(mistakesIn("inbound: { global: { period: 0.1s } }")).toHaveProperty(["inbound.global.period"]);
  expect(mistakesIn("inbound: { idempotency_retention: 1s }")).toHaveProperty([
    "inbound.idempotency_retention",
  ]);
});

test("the URL of Redis comes from the environment or the file, and a bad one is named without its password", () => {
  expect(loadText("").redisUrl).toBeUndefined();
  expect(loadText("redis_url: redis://127.0.0.1:6379").redisUrl).toBe("redis://127.0.0.1:6379");
  expect(
    loadText("redis_url: redis://file", { TOOLPLANE_REDIS_URL: "rediss://:p%40ss@host:6380/1" }).redisUrl,
  ).toBe("rediss://:p%40ss@host:6380/1");
  for (const url of [
    "http://user:hunter2@host",
    "redis://:hunter2@host:99999",
    "redis://:hunter2%@host",
    "redis://:hunter2@host/name",
    "redis:///hunter2",
  ]) {
    const mistakes = mistakesIn("", { TOOLPLANE_REDIS_URL: url });
    expect(Object.keys(mistakes)).toEqual(["redis_url"]);
    expect(JSON.stringify(mistakes)).not.toContain("hunter2");
  }
});
