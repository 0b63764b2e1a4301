import { Code } from "@connectrpc/connect";
import { DomainError, type DomainErrorInit } from "@toolplane/framework";
import { expect, test } from "vitest";
import { loadText } from "../../config/test-support/load-text.ts";
import { findModel } from "./catalogue.ts";
import type { Model } from "./model.ts";

const TEXT = `
  orchestration:
    providers:
      - { name: claude, protocol: anthropic }
      - { name: local, protocol: openai, base_url: "http://127.0.0.1:11434/v1" }
    models:
      - { name: quick, provider: claude, model: claude-haiku-4-5, input_price: 1, output_price: 5, max_output_tokens: 99 }
      - { name: team/best, provider: local, model: "qwen3:32b" }`;

function find(name: string, text = TEXT, env: NodeJS.ProcessEnv = {}): Model {
  return findModel(loadText(text, env).orchestration, name);
}

function refusal(name: string, text = TEXT, env: NodeJS.ProcessEnv = {}): DomainErrorInit {
  try {
    find(name, text, env);
  } catch (error) {
    expect.assert(error instanceof DomainError);
    return error.init;
  }
  return expect.unreachable("the model was found");
}

test("a configured model is found by its name", () => {
  expect(find("quick")).toEqual({
    name: "quick",
    provider: "claude",
    protocol: "anthropic",
    model: "claude-haiku-4-5",
    inputPrice: 1,
    cachedInputPrice: 1,
    outputPrice: 5,
    maxOutputTokens: 99,
  });
  expect(find("team/best")).toMatchObject({ provider: "local", protocol: "openai", model: "qwen3:32b" });
});

test("any model of a provider is found by both names", () => {
  expect(find("local/org/model:7b")).toEqual({
    name: "local/org/model:7b",
    provider: "local",
    protocol: "openai",
    model: "org/model:7b",
    inputPrice: undefined,
    cachedInputPrice: undefined,
    outputPrice: undefined,
    maxOutputTokens: 8192,
  });
});

test("a model that is configured under another name has its prices", () => {
  expect(find("claude/claude-haiku-4-5")).toMatchObject({ name: "quick", inputPrice: 1 });
});

test("no name means the default model", () => {
  expect(find("").name).toBe("quick");
  expect(find("", TEXT, { TOOLPLANE_MODEL: "local/llama3.2" }).name).toBe("local/llama3.2");
});

test.each(["nothing", "elsewhere/x", "claude/", "claude", "/x", "local"])(
  "an unknown model is refused, and those that there are are named: %s",
  (name) => {
    const { code, message, fields } = refusal(name);

    expect(code).toBe(Code.InvalidArgument);
    expect(fields).toMatchObject([{ field: "model" }]);
    expect(message).toContain("Providers: claude, local. Configured models: quick, team/best.");
  },
);

test.each(["", "anthropic/claude-sonnet-4-5"])("without any provider it is said what to set: %j", (name) => {
  const { code, reason, message, preconditions = [] } = refusal(name, "");

  expect({ code, reason }).toEqual({ code: Code.FailedPrecondition, reason: "NO_MODEL_PROVIDER" });
  for (const word of [
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "Ollama",
    "TOOLPLANE_MODEL",
    "orchestration.providers",
  ]) {
    expect(message).toContain(word);
  }
  expect(preconditions.map(({ subject }) => subject)).toEqual([
    "ANTHROPIC_API_KEY",
    "OPENAI_BASE_URL",
    "orchestration.providers",
  ]);
});

test("with a provider, but no default model, it is said what to set", () => {
  const { code, reason, message } = refusal("", "", { OPENAI_BASE_URL: "http://127.0.0.1:11434/v1" });

  expect({ code, reason }).toEqual({ code: Code.FailedPrecondition, reason: "NO_DEFAULT_MODEL" });
  expect(message).toContain("openai/…");
  expect(message).toContain("TOOLPLANE_MODEL");
});
