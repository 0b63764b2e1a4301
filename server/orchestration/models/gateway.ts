import type { JsonValue } from "@bufbuild/protobuf";
import { type Clock, DomainError } from "@toolplane/framework";
import type { Logger } from "pino";
import { Agent } from "undici";
import type { ModelProviderSettings, OrchestrationSettings } from "../../config/orchestration.ts";
import { isObject } from "../../schema/json.ts";
import { createAnswerCollector } from "./answer.ts";
import { readApiKey } from "./api-key.ts";
import { findModel, unknownModel } from "./catalogue.ts";
import { cutAnswer, readLateRefusal, refused, shuttingDown, wrongAnswer } from "./errors.ts";
import { createExchange, type Exchange, parseJson } from "./exchange.ts";
import type { Model, ModelGateway, Turn, TurnOptions, TurnRequest } from "./model.ts";
import { costUsd } from "./prices.ts";
import type { WirePart } from "./protocols.ts";
import { createSlots, type Slots } from "./slots.ts";
import { toWireRequest } from "./wire-request.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 30_000;
/** The libraries that speak the protocols take 70 ms and 15 MB, which a server without models does without. */
const loadProtocols = () => import("./protocols.ts");
/** How deep the libraries wrap errors at most. */
const MAX_CAUSES = 5;

export interface ModelGatewayOptions {
  readonly settings: Pick<OrchestrationSettings, "providers" | "models" | "defaultModel">;
  /** Where keys are read from. */
  readonly env: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Provider {
  readonly settings: ModelProviderSettings;
  readonly agent: Agent;
  readonly slots: Slots;
}

/** Asks models over the wire. Proxies in the environment are not used. */
export function createModelGateway({ settings, env, clock, logger }: ModelGatewayOptions): ModelGateway {
  const providers = new Map(
    [...settings.providers.values()].map((each) => [each.name, openProvider(each)] as const),
  );
  const running = new Set<AbortController>();
  let isClosed = false;

  function providerOf(model: Model): Provider {
    const provider = providers.get(model.provider);
    if (!provider) {
      // The run was planned by a server with other providers.
      throw unknownModel(settings, model.name);
    }
    return provider;
  }

  async function ask(provider: Provider, request: TurnRequest, options: TurnOptions): Promise<Turn> {
    const { model } = request;
    const exchange = createExchange({
      model,
      provider: provider.settings,
      apiKey: readApiKey(provider.settings, env),
      dispatcher: provider.agent,
      clock,
      signal: options.signal,
    });
    let listenerFailure: { readonly error: unknown } | undefined;
    const onDelta: TurnOptions["onDelta"] = (delta) => {
      try {
        options.onDelta(delta);
      } catch (error) {
        listenerFailure = { error };
        throw error;
      }
    };
    try {
      return await converse(provider.settings, exchange, request, onDelta);
    } catch (error) {
      options.signal.throwIfAborted();
      if (listenerFailure) {
        throw listenerFailure.error;
      }
      const failure = exchange.hasBegun ? await toFailure(model, exchange, error) : error;
      if (failure instanceof DomainError) {
        const { reason } = failure.init;
        logger.warn({ provider: model.provider, model: model.model, reason }, failure.message);
      }
      throw failure;
    } finally {
      exchange.end();
    }
  }

  return {
    find: (name) => findModel(settings, name),
    costUsd,
    async turn(request, { signal, onDelta }) {
      const provider = providerOf(request.model);
      signal.throwIfAborted();
      const controller = new AbortController();
      const leave = () => controller.abort(signal.reason);
      signal.addEventListener("abort", leave, { once: true });
      running.add(controller);
      try {
        if (isClosed) {
          throw shuttingDown();
        }
        const options = { signal: controller.signal, onDelta };
        return await provider.slots.run(controller.signal, () => ask(provider, request, options));
      } finally {
        running.delete(controller);
        signal.removeEventListener("abort", leave);
      }
    },
    async close() {
      isClosed = true;
      for (const controller of running) {
        controller.abort(shuttingDown());
      }
      await Promise.all([...providers.values()].map(({ agent }) => agent.destroy()));
    },
  };
}

function openProvider(settings: ModelProviderSettings): Provider {
  return {
    settings,
    agent: new Agent({
      connections: settings.maxConcurrency,
      connect: { timeout: CONNECT_TIMEOUT_MS },
      keepAliveTimeout: IDLE_TIMEOUT_MS,
    }),
    slots: createSlots(settings.name, settings.maxConcurrency),
  };
}

async function converse(
  provider: ModelProviderSettings,
  exchange: Exchange,
  request: TurnRequest,
  onDelta: TurnOptions["onDelta"],
): Promise<Turn> {
  const { model } = request;
  const { createWireModel } = await loadProtocols();
  const wire = createWireModel(provider, model.model, exchange.fetch);
  const wireRequest = toWireRequest(request);
  const { stream } = await wire.doStream(wireRequest);
  const collector = createAnswerCollector(onDelta);
  for await (const part of stream as ReadableStream<WirePart>) {
    if (part.type === "error") {
      throw part.error;
    }
    collector.take(part);
  }
  const sent = JSON.stringify([wireRequest.prompt, wireRequest.tools]).length;
  const turn = collector.finish(sent);
  if (!turn) {
    throw cutAnswer(model);
  }
  return turn;
}

/** What a failure after the request was sent comes to, in whatever the libraries have wrapped it. */
async function toFailure(model: Model, exchange: Exchange, error: unknown): Promise<DomainError> {
  const known = domainErrorIn(error);
  if (known) {
    return known;
  }
  const refusal = await refusalIn(error);
  if (refusal !== undefined) {
    const { words, ...rest } = readLateRefusal(refusal);
    return refused(model, { ...rest, words: exchange.scrub(words) });
  }
  if (error instanceof Error && /without a finish reason/.test(error.message)) {
    return cutAnswer(model);
  }
  const name = error instanceof Error ? error.name : typeof error;
  return wrongAnswer(model, `it is not as its protocol asks for (${name})`);
}

function domainErrorIn(error: unknown): DomainError | undefined {
  let cause = error;
  for (let depth = 0; depth < MAX_CAUSES && cause instanceof Error; depth++) {
    if (cause instanceof DomainError) {
      return cause;
    }
    cause = cause.cause;
  }
  return undefined;
}

/** What a provider has said in the middle of its answer: as it is, or, from the very beginning, as a failed call. */
async function refusalIn(error: unknown): Promise<JsonValue | undefined> {
  const { responseBodyOf } = await loadProtocols();
  const body = responseBodyOf(error);
  if (body !== undefined) {
    return parseJson(body);
  }
  return error instanceof Error || !isObject(error as JsonValue) ? undefined : (error as JsonValue);
}
