import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError } from "ai";
import type { ModelProviderSettings } from "../../config/orchestration.ts";

/** A model as the library that speaks its protocol has it. */
export type WireModel = ReturnType<ReturnType<typeof createAnthropic>>;
export type WireRequest = Parameters<WireModel["doStream"]>[0];
export type WireMessage = WireRequest["prompt"][number];
export type WirePart =
  Awaited<ReturnType<WireModel["doStream"]>>["stream"] extends ReadableStream<infer Part> ? Part : never;

/** What the libraries want to have where a key belongs; see `authorized`. */
const NO_KEY = "none";

export function createWireModel(
  provider: ModelProviderSettings,
  model: string,
  fetch: typeof globalThis.fetch,
): WireModel {
  switch (provider.protocol) {
    case "anthropic":
      return createAnthropic({ baseURL: provider.baseUrl, apiKey: NO_KEY, fetch })(model);
    case "openai":
      return createOpenAICompatible({
        name: provider.name,
        baseURL: provider.baseUrl,
        apiKey: NO_KEY,
        fetch,
        includeUsage: true,
        transformRequestBody: isOpenAi(provider) ? renameMaxTokens : (body) => body,
      }).chatModel(model);
  }
}

/** What came instead of an answer. Undefined: the error is none of the libraries' own. */
export function responseBodyOf(error: unknown): string | undefined {
  return APICallError.isInstance(error) ? (error.responseBody ?? "") : undefined;
}

function isOpenAi({ baseUrl }: ModelProviderSettings): boolean {
  return new URL(baseUrl).hostname === "api.openai.com";
}

/** OpenAI's own models refuse the name that all other servers know. */
function renameMaxTokens({ max_tokens, ...body }: Record<string, unknown>): Record<string, unknown> {
  return { ...body, max_completion_tokens: max_tokens };
}
