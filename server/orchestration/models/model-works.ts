import { create } from "@bufbuild/protobuf";
import type { Clock } from "@toolplane/framework";
import type { ResponseCache } from "@toolplane/framework/policies";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { Logger } from "pino";
import type { OrchestrationSettings } from "../../config/orchestration.ts";
import type { ToolCalling, Work, Works } from "../actions/action.ts";
import type { Redactor } from "../store/redact.ts";
import { createAgentWork } from "./agents.ts";
import { createAnswerCache } from "./answer-cache.ts";
import { answerOutput } from "./answer-json.ts";
import { toUsage } from "./budgets.ts";
import { createModelLoop } from "./loop.ts";
import type { ModelGateway } from "./model.ts";
import { REQUIREMENT_PROMPT } from "./prompts.ts";
import type { ToolSource } from "./tool-choice.ts";

export interface ModelWorksOptions {
  readonly gateway: Pick<ModelGateway, "find" | "turn" | "costUsd">;
  /** The registry. */
  readonly tools: ToolSource;
  readonly calling: ToolCalling;
  /** Keeps the answers of agents. Undefined: nothing does. */
  readonly cache: ResponseCache | undefined;
  readonly redactor: Redactor;
  readonly settings: Pick<OrchestrationSettings, "searchToolsAbove" | "uncachedAgents">;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The steps that models do. */
export function createModelWorks(options: ModelWorksOptions): Pick<Works, "requirement" | "agent"> {
  const { gateway, tools, calling, cache, redactor, settings, clock, logger } = options;
  const { searchToolsAbove, uncachedAgents } = settings;
  const loop = createModelLoop({ gateway, tools, calling, searchToolsAbove, redactor, clock, logger });

  const requirement: Work<"requirement"> = async (action, input, context) => {
    const { text, spent } = await loop(
      {
        model: gateway.find(action.model),
        instructions: [REQUIREMENT_PROMPT, action.instructions].filter((part) => part !== "").join("\n\n"),
        task: String(input["text"] ?? ""),
        tools: action.tools,
        budget: action.budget,
        retriesTurns: true,
      },
      context,
    );
    return { output: answerOutput(text), usage: create(UsageSchema, toUsage(spent)) };
  };

  const answers = createAnswerCache(cache, uncachedAgents);
  return { requirement, agent: createAgentWork({ gateway, loop, answers, tools }) };
}
