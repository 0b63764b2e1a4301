import { create } from "@bufbuild/protobuf";
import {
  type ModelConfig,
  type ModelProviderConfig,
  type OrchestrationConfig,
  type SecretSource,
  SecretSourceSchema,
} from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { milliseconds } from "./durations.ts";
import type { ReportMistake } from "./mistakes.ts";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const MIB = 1024 * 1024;

/** How many runs there may be, how large they may be, and which models they may use. */
export interface OrchestrationSettings {
  /** On this replica. */
  readonly maxConcurrentRuns: number;
  /** On all replicas together. */
  readonly maxQueuedRuns: number;
  readonly retentionMs: number;
  readonly maxValueBytes: number;
  readonly maxRunBytes: number;
  readonly maxEventsPerRun: number;
  readonly maxDepth: number;
  /** From so many allowed tools on, a model searches for tools. */
  readonly searchToolsAbove: number;
  /** By name. */
  readonly uncachedAgents: ReadonlySet<string>;
  /** A name of `models`, or `provider/model`. Undefined: there is none. */
  readonly defaultModel: string | undefined;
  /** By name. */
  readonly providers: ReadonlyMap<string, ModelProviderSettings>;
  /** By name, in the order of the configuration. */
  readonly models: ReadonlyMap<string, ModelSettings>;
}

/** What a provider of models speaks: Anthropic's Messages API, or OpenAI's chat completions API. */
export type ModelProtocol = "anthropic" | "openai";

/** A server of models. */
export interface ModelProviderSettings {
  readonly name: string;
  readonly protocol: ModelProtocol;
  /** With the version's path and without a slash at its end. */
  readonly baseUrl: string;
  /** Undefined: it wants none. */
  readonly apiKey: SecretSource | undefined;
  /** On this replica. */
  readonly maxConcurrency: number;
  /** How long nothing may come while it answers. */
  readonly silenceMs: number;
}

/** A model under a name of its own. Prices are in United States dollars for a million tokens; undefined: not known. */
export interface ModelSettings {
  readonly name: string;
  readonly provider: string;
  /** Its name at the provider. */
  readonly model: string;
  readonly inputPrice: number | undefined;
  readonly cachedInputPrice: number | undefined;
  readonly outputPrice: number | undefined;
  readonly maxOutputTokens: number;
}

/** What a model may write in a turn where the configuration does not say. */
export const DEFAULT_MAX_OUTPUT_TOKENS = 8192;

const VENDOR_URLS: Readonly<Record<ModelProtocol, string>> = {
  anthropic: "https://api.anthropic.com/v1",
  openai: "https://api.openai.com/v1",
};

/** @param env where the providers come from that need no configuration, and `TOOLPLANE_MODEL` */
export function resolveOrchestration(
  config: OrchestrationConfig | undefined,
  env: NodeJS.ProcessEnv,
  report: ReportMistake,
): OrchestrationSettings {
  const providers = resolveProviders(config?.providers ?? [], env, report);
  const models = resolveModels(config?.models ?? [], providers, report);
  return {
    maxConcurrentRuns: config?.maxConcurrentRuns || 50,
    maxQueuedRuns: config?.maxQueuedRuns || 10_000,
    retentionMs: milliseconds(config?.retention, 30 * DAY),
    maxValueBytes: config?.maxValueBytes || MIB,
    maxRunBytes: config?.maxRunBytes || 64 * MIB,
    maxEventsPerRun: config?.maxEventsPerRun || 1_000_000,
    maxDepth: config?.maxDepth || 5,
    searchToolsAbove: config?.searchToolsAbove || 20,
    uncachedAgents: new Set(config?.uncachedAgents),
    defaultModel: resolveDefaultModel(config?.defaultModel ?? "", env, providers, models, report),
    providers,
    models,
  };
}

function resolveProviders(
  configs: readonly ModelProviderConfig[],
  env: NodeJS.ProcessEnv,
  report: ReportMistake,
): ReadonlyMap<string, ModelProviderSettings> {
  const providers = new Map<string, ModelProviderSettings>();
  for (const [index, config] of configs.entries()) {
    const field = `orchestration.providers[${index}]`;
    if (providers.has(config.name)) {
      reportTwin(`${field}.name`, config.name, report);
    }
    const protocol = config.protocol as ModelProtocol;
    const baseUrl = config.baseUrl || VENDOR_URLS[protocol];
    checkBaseUrl(baseUrl, `${field}.base_url`, report);
    providers.set(config.name, {
      ...provider(config.name, protocol, baseUrl, config.apiKey),
      maxConcurrency: config.maxConcurrency || 50,
      silenceMs: milliseconds(config.silenceTimeout, 2 * MINUTE),
    });
  }
  for (const found of providersOfEnvironment(env, report)) {
    if (!providers.has(found.name)) {
      providers.set(found.name, found);
    }
  }
  return providers;
}

/** The providers that exist by the variables that the vendors' own libraries read. */
function providersOfEnvironment(env: NodeJS.ProcessEnv, report: ReportMistake): ModelProviderSettings[] {
  const found: ModelProviderSettings[] = [];
  if (env["ANTHROPIC_API_KEY"]) {
    const given = env["ANTHROPIC_BASE_URL"];
    checkBaseUrl(given || VENDOR_URLS.anthropic, "ANTHROPIC_BASE_URL", report);
    // Anthropic's libraries take it without the version and add that themselves.
    const baseUrl = given ? `${given.replace(/\/+$/, "").replace(/\/v1$/, "")}/v1` : VENDOR_URLS.anthropic;
    found.push(provider("anthropic", "anthropic", baseUrl, variable("ANTHROPIC_API_KEY")));
  }
  if (env["OPENAI_API_KEY"] || env["OPENAI_BASE_URL"]) {
    const baseUrl = env["OPENAI_BASE_URL"] || VENDOR_URLS.openai;
    checkBaseUrl(baseUrl, "OPENAI_BASE_URL", report);
    const apiKey = env["OPENAI_API_KEY"] ? variable("OPENAI_API_KEY") : undefined;
    found.push(provider("openai", "openai", baseUrl, apiKey));
  }
  return found;
}

function variable(name: string): SecretSource {
  return create(SecretSourceSchema, { source: { case: "env", value: name } });
}

function provider(
  name: string,
  protocol: ModelProtocol,
  baseUrl: string,
  apiKey: SecretSource | undefined,
): ModelProviderSettings {
  return {
    name,
    protocol,
    baseUrl: baseUrl.replace(/\/+$/, ""),
    apiKey,
    maxConcurrency: 50,
    silenceMs: 2 * MINUTE,
  };
}

/** A password in a base URL would show in messages and logs; what follows a `?` would end up in the middle of the path. */
function checkBaseUrl(text: string, field: string, report: ReportMistake): void {
  if (!URL.canParse(text) || !/^https?:\/\//.test(text)) {
    report(field, "must be a URL such as http://127.0.0.1:11434/v1");
    return;
  }
  const url = new URL(text);
  if (url.username || url.password || url.search || url.hash) {
    report(field, "must have no user, password, query or fragment; a key belongs into api_key");
  }
}

function resolveModels(
  configs: readonly ModelConfig[],
  providers: ReadonlyMap<string, unknown>,
  report: ReportMistake,
): ReadonlyMap<string, ModelSettings> {
  const models = new Map<string, ModelSettings>();
  for (const [index, config] of configs.entries()) {
    const field = `orchestration.models[${index}]`;
    if (models.has(config.name)) {
      reportTwin(`${field}.name`, config.name, report);
    }
    if (!providers.has(config.provider)) {
      report(
        `${field}.provider`,
        `is ${JSON.stringify(config.provider)}, but ${listProviders(providers)}; add it to orchestration.providers`,
      );
    }
    models.set(config.name, {
      name: config.name,
      provider: config.provider,
      model: config.model || config.name,
      inputPrice: config.inputPrice,
      cachedInputPrice: config.cachedInputPrice ?? config.inputPrice,
      outputPrice: config.outputPrice,
      maxOutputTokens: config.maxOutputTokens || DEFAULT_MAX_OUTPUT_TOKENS,
    });
  }
  return models;
}

function resolveDefaultModel(
  configured: string,
  env: NodeJS.ProcessEnv,
  providers: ReadonlyMap<string, unknown>,
  models: ReadonlyMap<string, unknown>,
  report: ReportMistake,
): string | undefined {
  const name = env["TOOLPLANE_MODEL"] || configured;
  if (name === "") {
    return models.keys().next().value;
  }
  const slash = name.indexOf("/");
  const isKnown =
    models.has(name) || (slash > 0 && slash < name.length - 1 && providers.has(name.slice(0, slash)));
  if (!isKnown) {
    report(
      env["TOOLPLANE_MODEL"] ? "TOOLPLANE_MODEL" : "orchestration.default_model",
      `is ${JSON.stringify(name)}: must be a name of orchestration.models or provider/model, and ${listProviders(providers)}`,
    );
  }
  return name;
}

function listProviders(providers: ReadonlyMap<string, unknown>): string {
  return providers.size === 0
    ? "there are no providers: set ANTHROPIC_API_KEY, OPENAI_API_KEY or OPENAI_BASE_URL, or add one to orchestration.providers"
    : `the providers are ${[...providers.keys()].map((name) => JSON.stringify(name)).join(", ")}`;
}

function reportTwin(field: string, name: string, report: ReportMistake): void {
  report(field, `is ${JSON.stringify(name)}, as is that of another one; each needs its own`);
}
