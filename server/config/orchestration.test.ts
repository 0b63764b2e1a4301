import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { loadText, mistakesIn } from "./test-support/load-text.ts";

const page = readFileSync(join(import.meta.dirname, "../../docs/configuration.md"), "utf8");

test("without a word on it, the documented limits hold and there are no models", () => {
  expect(loadText("").orchestration).toEqual({
    maxConcurrentRuns: 50,
    maxQueuedRuns: 10_000,
    retentionMs: 2_592_000_000,
    maxValueBytes: 1_048_576,
    maxRunBytes: 67_108_864,
    maxEventsPerRun: 1_000_000,
    maxDepth: 5,
    searchToolsAbove: 20,
    uncachedAgents: new Set(),
    defaultModel: undefined,
    providers: new Map(),
    models: new Map(),
  });
});

test("a provider needs no more than a name and a protocol", () => {
  const { providers } = loadText(`
    orchestration:
      providers:
        - { name: claude, protocol: anthropic, api_key: { file: /run/key } }
        - { name: local, protocol: openai, base_url: "http://127.0.0.1:11434/v1/", max_concurrency: 2, silence_timeout: 10s }
  `).orchestration;

  expect([...providers.values()]).toEqual([
    {
      name: "claude",
      protocol: "anthropic",
      baseUrl: "https://api.anthropic.com/v1",
      apiKey: expect.objectContaining({ source: { case: "file", value: "/run/key" } }),
      maxConcurrency: 50,
      silenceMs: 120_000,
    },
    {
      name: "local",
      protocol: "openai",
      baseUrl: "http://127.0.0.1:11434/v1",
      apiKey: undefined,
      maxConcurrency: 2,
      silenceMs: 10_000,
    },
  ]);
});

test("a model has its own name at its provider and the input price for cached tokens unless told otherwise", () => {
  const { models, defaultModel } = loadText(`
    orchestration:
      providers: [{ name: claude, protocol: anthropic }]
      models:
        - { name: quick, provider: claude, model: claude-haiku-4-5, input_price: 1, output_price: 5, max_output_tokens: 100 }
        - { name: plain, provider: claude, input_price: 3, cached_input_price: 0 }
  `).orchestration;

  expect(models.get("quick")).toEqual({
    name: "quick",
    provider: "claude",
    model: "claude-haiku-4-5",
    inputPrice: 1,
    cachedInputPrice: 1,
    outputPrice: 5,
    maxOutputTokens: 100,
  });
  expect(models.get("plain")).toMatchObject({
    model: "plain",
    cachedInputPrice: 0,
    outputPrice: undefined,
    maxOutputTokens: 8192,
  });
  expect(defaultModel).toBe("quick");
});

const key = "sk-0123456789";

test.each([
  [{}, []],
  [{ ANTHROPIC_BASE_URL: "http://127.0.0.1:1" }, []],
  [{ ANTHROPIC_API_KEY: key }, ["anthropic https://api.anthropic.com/v1 ANTHROPIC_API_KEY"]],
  [
    { ANTHROPIC_API_KEY: key, ANTHROPIC_BASE_URL: "http://127.0.0.1:1/" },
    ["anthropic http://127.0.0.1:1/v1 ANTHROPIC_API_KEY"],
  ],
  [
    { ANTHROPIC_API_KEY: key, ANTHROPIC_BASE_URL: "http://127.0.0.1:1/x/v1" },
    ["anthropic http://127.0.0.1:1/x/v1 ANTHROPIC_API_KEY"],
  ],
  [{ OPENAI_API_KEY: key }, ["openai https://api.openai.com/v1 OPENAI_API_KEY"]],
  [{ OPENAI_BASE_URL: "http://127.0.0.1:1/v1" }, ["openai http://127.0.0.1:1/v1 undefined"]],
])("the variables %j give %j", (env, expected) => {
  const { providers } = loadText("", env).orchestration;

  expect(
    [...providers.values()].map(({ name, baseUrl, apiKey }) => `${name} ${baseUrl} ${apiKey?.source.value}`),
  ).toEqual(expected);
});

test("a configured provider stands above the one that the environment gives", () => {
  const { providers } = loadText(
    'orchestration: { providers: [{ name: openai, protocol: openai, base_url: "http://127.0.0.1:2/v1" }] }',
    { OPENAI_API_KEY: key, OPENAI_BASE_URL: "http://127.0.0.1:1/v1" },
  ).orchestration;

  expect(providers.get("openai")).toMatchObject({ baseUrl: "http://127.0.0.1:2/v1", apiKey: undefined });
});

test("TOOLPLANE_MODEL wins over the configured default", () => {
  const text = "orchestration: { default_model: openai/a }";
  const env = { OPENAI_BASE_URL: "http://127.0.0.1:1/v1" };

  expect(loadText(text, env).orchestration.defaultModel).toBe("openai/a");
  expect(loadText(text, { ...env, TOOLPLANE_MODEL: "openai/b/c" }).orchestration.defaultModel).toBe(
    "openai/b/c",
  );
});

test("mistakes are told by their fields", () => {
  expect(
    mistakesIn(
      `
      orchestration:
        default_model: elsewhere/x
        providers:
          - { name: a, protocol: openai, base_url: "http://user:secret@127.0.0.1/v1" }
          - { name: a, protocol: openai, base_url: "http://[::1/v1" }
        models:
          - { name: m, provider: a }
          - { name: m, provider: b }`,
      { OPENAI_BASE_URL: "127.0.0.1:11434" },
    ),
  ).toEqual({
    "orchestration.providers[0].base_url": expect.stringContaining("no user, password"),
    "orchestration.providers[1].name": expect.stringContaining('"a"'),
    "orchestration.providers[1].base_url": expect.stringContaining("must be a URL"),
    "orchestration.models[1].name": expect.stringContaining('"m"'),
    "orchestration.models[1].provider": expect.stringContaining('the providers are "a"'),
    "orchestration.default_model": expect.stringContaining("elsewhere/x"),
    OPENAI_BASE_URL: expect.stringContaining("must be a URL"),
  });
});

test("a default model without any provider says what to set", () => {
  expect(mistakesIn("", { TOOLPLANE_MODEL: "anthropic/claude-sonnet-4-5" })).toEqual({
    TOOLPLANE_MODEL: expect.stringContaining("set ANTHROPIC_API_KEY"),
  });
});

test.each([
  ["orchestration.providers[0].protocol", "{ providers: [{ name: a, protocol: grpc }] }"],
  [
    "orchestration.providers[0].base_url",
    "{ providers: [{ name: a, protocol: openai, base_url: ftp://a }] }",
  ],
  ["orchestration.models[0].input_price", "{ models: [{ name: a, provider: b, input_price: -1 }] }"],
  ["orchestration.max_depth", "{ max_depth: 101 }"],
])("the contract refuses a wrong %s", (field, text) => {
  expect(Object.keys(mistakesIn(`orchestration: ${text}`))).toContain(field);
});

test("the example in the documentation is valid", () => {
  const [, example = ""] = /^## Runs and models$.*?```yaml\n(.*?)```/ms.exec(page) ?? [];

  const { providers, models, defaultModel } = loadText(example).orchestration;

  expect([...providers.keys()]).toEqual(["claude", "local"]);
  expect([...models.keys()]).toEqual(["careful", "llama3.2"]);
  expect(defaultModel).toBe("careful");
});
