import { createHash } from "node:crypto";
import { type JsonObject, toBinary } from "@bufbuild/protobuf";
import type { Principal } from "@toolplane/framework";
import type { ResponseCache } from "@toolplane/framework/policies";
import { type Agent, ToolScopeSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { Idempotency } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { milliseconds } from "../../config/durations.ts";
import { isObject } from "../../schema/json.ts";
import type { ToolSource } from "./tool-choice.ts";

/** An answer that was kept, and what giving it again saves. */
export interface KeptAnswer {
  readonly output: JsonObject;
  readonly tokens: number;
  readonly costUsd: number;
}

/** Keeps what agents have answered. */
export interface AnswerCache {
  /** An answer that is still fresh. */
  find(agent: Agent, model: string, task: string, principal: Principal): Promise<KeptAnswer | undefined>;
  /** Never fails: what cannot be kept is asked for again. */
  keep(agent: Agent, model: string, task: string, principal: Principal, answer: KeptAnswer): Promise<void>;
}

const DAY = 24 * 60 * 60_000;

/** Thrown by a load that was to find something and not to load it. */
class NothingKept extends Error {
  override readonly name = "NothingKept";
}

/**
 * Looking up, working and keeping are done one after the other, not as one load that simultaneous tasks share: a worker that
 * waited for another one's load would lose its run with it, and the journal of each run has to have its own turns.
 *
 * @param cache undefined: nothing is kept
 * @param uncachedAgents agents whose answers are never kept, by name
 */
export function createAnswerCache(
  cache: ResponseCache | undefined,
  uncachedAgents: ReadonlySet<string>,
): AnswerCache {
  const isUsed = (agent: Agent) =>
    cache !== undefined && !agent.cacheExcluded && !uncachedAgents.has(agent.name);

  return {
    async find(agent, model, task, principal) {
      if (cache === undefined || !isUsed(agent)) {
        return undefined;
      }
      const key = keyOf(agent, model, task, principal);
      // Asked first, so that a miss is not counted as a load that failed.
      const known = await cache.lastGood(key);
      if (known?.state !== "hit") {
        return undefined;
      }
      try {
        const { value, tokens, costUsd } = await cache.getOrLoad(key, async () => {
          throw new NothingKept();
        });
        const output: unknown = JSON.parse(Buffer.from(value).toString());
        return isAnswer(output) ? { output, tokens, costUsd } : undefined;
      } catch {
        // It was purged a moment ago, or is no answer of ours.
        return undefined;
      }
    },

    async keep(agent, model, task, principal, { output, tokens, costUsd }) {
      if (cache === undefined || !isUsed(agent)) {
        return;
      }
      const value = Buffer.from(JSON.stringify(output));
      const ttlMs = milliseconds(agent.cacheTtl, 0) || DAY;
      const options = { ttlMs, tags: [`agent:${agent.name}`] };
      await cache
        .getOrLoad(keyOf(agent, model, task, principal), async () => ({ value, tokens, costUsd }), options)
        .catch(() => undefined);
    },
  };
}

function isAnswer(value: unknown): value is JsonObject {
  // JSON.parse gives nothing but JSON.
  return isObject(value as JsonObject) && typeof (value as JsonObject)["text"] === "string";
}

/**
 * All that an answer depends on. Tools answer callers as they may see things, so that where there are any, each caller has
 * answers of its own.
 */
function keyOf(agent: Agent, model: string, task: string, principal: Principal): string {
  const { name, version, prompt, tools } = agent;
  const usesTools = tools !== undefined && !tools.none;
  const scope = usesTools ? Buffer.from(toBinary(ToolScopeSchema, tools)).toString("base64") : "";
  const parts = [name, version, model, prompt, scope, usesTools ? principal.id : "", task];
  return `agent ${name} ${createHash("sha256").update(JSON.stringify(parts)).digest("hex")}`;
}

/**
 * Whether an answer that needed these tools can stand for the same task another time: only where none of them has side
 * effects. One that is idempotent has them: who asks once more wants them to happen, since others may have undone them.
 */
export function isRepeatable(
  called: ReadonlySet<string>,
  environment: string,
  tools: Pick<ToolSource, "getTool">,
): boolean {
  try {
    return [...called].every(
      (name) => tools.getTool(name, { environment }).idempotency === Idempotency.NO_SIDE_EFFECTS,
    );
  } catch {
    return false; // it is gone by now
  }
}
