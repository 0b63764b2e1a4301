import { Code } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import type { Clock } from "@toolplane/framework";
import { codeOf } from "../../error-code.ts";
import type { Model, ModelGateway } from "../models/model.ts";

/** What was asked of one model since the start. Durations in milliseconds. */
export interface ModelStats {
  /** `other`: all models for which there was no place. */
  readonly model: string;
  readonly inFlight: number;
  /** Requests that have ended, by `ok` or the name of the error's code, such as `unavailable`. */
  readonly turns: ReadonlyMap<string, number>;
  /** How long they took, together, with the wait for their turn. */
  readonly totalMs: number;
  /** What was read, that from the provider's cache included. */
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly outputTokens: number;
  /** As far as prices are known. */
  readonly costUsd: number;
}

/** Counts what models are asked. */
export interface ModelMeter {
  metered(gateway: ModelGateway): ModelGateway;
  stats(): readonly ModelStats[];
}

/** Whoever starts a run may name any model of a provider. */
const MAX_MODELS = 50;
const OTHER = "other";

class ModelCounts implements ModelStats {
  readonly model: string;
  readonly turns = new Map<string, number>();
  inFlight = 0;
  totalMs = 0;
  inputTokens = 0;
  cachedInputTokens = 0;
  outputTokens = 0;
  costUsd = 0;

  constructor(model: string) {
    this.model = model;
  }
}

export function createModelMeter(clock: Clock): ModelMeter {
  const models = new Map<string, ModelCounts>();

  function countsOf({ name }: Model): ModelCounts {
    const place = models.has(name) || models.size < MAX_MODELS ? name : OTHER;
    const known = models.get(place) ?? new ModelCounts(place);
    models.set(place, known);
    return known;
  }

  return {
    metered: (gateway) => ({
      find: (name) => gateway.find(name),
      costUsd: (model, usage) => gateway.costUsd(model, usage),
      close: () => gateway.close(),
      async turn(request, options) {
        const counts = countsOf(request.model);
        const startedAt = clock.monotonic();
        let result = "ok";
        counts.inFlight++;
        try {
          const turn = await gateway.turn(request, options);
          counts.inputTokens += turn.usage.inputTokens;
          counts.cachedInputTokens += turn.usage.cachedInputTokens;
          counts.outputTokens += turn.usage.outputTokens;
          counts.costUsd += gateway.costUsd(request.model, turn.usage) ?? 0;
          return turn;
        } catch (error) {
          result = codeToString(options.signal.aborted ? Code.Canceled : codeOf(error));
          throw error;
        } finally {
          counts.inFlight--;
          counts.totalMs += clock.monotonic() - startedAt;
          counts.turns.set(result, (counts.turns.get(result) ?? 0) + 1);
        }
      },
    }),
    stats: () => [...models.values()],
  };
}
