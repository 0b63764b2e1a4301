import { Code } from "@connectrpc/connect";
import { DomainError, invalidArgument } from "@toolplane/framework";
import {
  DEFAULT_MAX_OUTPUT_TOKENS,
  type ModelSettings,
  type OrchestrationSettings,
} from "../../config/orchestration.ts";
import type { Model } from "./model.ts";

const MAX_LISTED = 20;

type Catalogue = Pick<OrchestrationSettings, "providers" | "models" | "defaultModel">;

/** Finds a model: see `ModelGateway.find`. */
export function findModel(catalogue: Catalogue, name: string): Model {
  if (catalogue.providers.size === 0) {
    throw unknownModel(catalogue, name);
  }
  const wanted = name || catalogue.defaultModel;
  if (wanted === undefined) {
    throw noDefault(catalogue);
  }
  const configured = catalogue.models.get(wanted);
  if (configured) {
    return toModel(catalogue, configured);
  }
  const slash = wanted.indexOf("/");
  const provider = catalogue.providers.get(wanted.slice(0, Math.max(slash, 0)));
  const model = wanted.slice(slash + 1);
  if (!provider || model === "") {
    throw unknownModel(catalogue, wanted);
  }
  const priced = [...catalogue.models.values()].find(
    (each) => each.provider === provider.name && each.model === model,
  );
  return toModel(
    catalogue,
    priced ?? {
      name: wanted,
      provider: provider.name,
      model,
      inputPrice: undefined,
      cachedInputPrice: undefined,
      outputPrice: undefined,
      maxOutputTokens: DEFAULT_MAX_OUTPUT_TOKENS,
    },
  );
}

function toModel(catalogue: Catalogue, settings: ModelSettings): Model {
  const provider = catalogue.providers.get(settings.provider);
  if (!provider) {
    throw unknownModel(catalogue, settings.name);
  }
  return { ...settings, protocol: provider.protocol };
}

function noProvider(): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "NO_MODEL_PROVIDER",
    message:
      "This server has no provider of models. Set ANTHROPIC_API_KEY; or OPENAI_API_KEY; or, for Ollama, vLLM or llama.cpp, OPENAI_BASE_URL such as http://127.0.0.1:11434/v1; each with TOOLPLANE_MODEL, such as anthropic/claude-sonnet-4-5 or openai/llama3.2; or add a provider to orchestration.providers in the configuration file. Then restart the server.",
    preconditions: [
      {
        type: "CONFIGURATION",
        subject: "ANTHROPIC_API_KEY",
        description: "The key of Anthropic, with TOOLPLANE_MODEL such as anthropic/claude-sonnet-4-5.",
      },
      {
        type: "CONFIGURATION",
        subject: "OPENAI_BASE_URL",
        description:
          "Where a server with OpenAI's chat completions API is, with TOOLPLANE_MODEL such as openai/llama3.2 and OPENAI_API_KEY if it wants a key.",
      },
      {
        type: "CONFIGURATION",
        subject: "orchestration.providers",
        description: "Providers in the configuration file, with orchestration.default_model.",
      },
    ],
  });
}

function noDefault(catalogue: Catalogue): DomainError {
  const example = `${catalogue.providers.keys().next().value}/…`;
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "NO_DEFAULT_MODEL",
    message: `No model is named, and this server has no default one: name one as provider/model, such as ${example}, or set TOOLPLANE_MODEL or orchestration.default_model. ${available(catalogue)}`,
    preconditions: [
      {
        type: "CONFIGURATION",
        subject: "TOOLPLANE_MODEL",
        description: `The default model as provider/model, such as ${example}.`,
      },
    ],
  });
}

/** Says which models there are, or how there come to be some. */
export function unknownModel(catalogue: Catalogue, name: string): DomainError {
  if (catalogue.providers.size === 0) {
    return noProvider();
  }
  return invalidArgument([
    {
      field: "model",
      description: `${JSON.stringify(name.slice(0, 256))} is no model of this server: name one as provider/model. ${available(catalogue)}`,
      reason: "UNKNOWN_MODEL",
    },
  ]);
}

function available({ providers, models }: Catalogue): string {
  const configured = models.size === 0 ? "" : ` Configured models: ${list([...models.keys()])}.`;
  return `Providers: ${list([...providers.keys()])}.${configured}`;
}

function list(names: readonly string[]): string {
  const more = names.length > MAX_LISTED ? ` and ${names.length - MAX_LISTED} more` : "";
  return `${names.slice(0, MAX_LISTED).join(", ")}${more}`;
}
