import { create } from "@bufbuild/protobuf";
import { ToolScopeSchema, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { Work } from "../actions/action.ts";
import type { StepContext, StepOutput } from "../engine/step.ts";
import { type AnswerCache, isRepeatable, type KeptAnswer } from "./answer-cache.ts";
import { answerOutput } from "./answer-json.ts";
import { toUsage } from "./budgets.ts";
import type { ModelLoop } from "./loop.ts";
import type { ModelGateway } from "./model.ts";
import type { ToolSource } from "./tool-choice.ts";

export interface AgentWorkOptions {
  readonly gateway: Pick<ModelGateway, "find">;
  readonly loop: ModelLoop;
  readonly answers: AnswerCache;
  readonly tools: Pick<ToolSource, "getTool">;
}

/** An agent that names no scope has no tools: what it may do, its author has said. */
const NO_TOOLS = create(ToolScopeSchema, { none: true });

/** Gives tasks to agents. Answers are given from the cache where they can be. */
export function createAgentWork({ gateway, loop, answers, tools }: AgentWorkOptions): Work<"agent"> {
  return async ({ agent }, input, context) => {
    const task = String(input["task"] ?? "");
    const model = gateway.find(agent.model);
    const { principal } = context.run;
    // Once the model has begun, it goes on: another answer could contradict what its tools have done.
    const kept = hasBegun(context) ? undefined : await answers.find(agent, model.name, task, principal);
    if (kept !== undefined) {
      return reuse(kept, context);
    }
    const scope = agent.tools ?? NO_TOOLS;
    const { text, spent, called, isForced } = await loop(
      {
        model,
        instructions: agent.prompt,
        task,
        tools: scope,
        budget: agent.budget,
        // The attempts of the task count them: what is tried thrice is to be sent thrice, and not nine times.
        retriesTurns: false,
      },
      context,
    );
    const output = answerOutput(text);
    if (!isForced && isRepeatable(called, scope.environment, tools)) {
      const { inputTokens, outputTokens, costUsd } = spent;
      const answer = { output, tokens: inputTokens + outputTokens, costUsd };
      await answers.keep(agent, model.name, task, principal, answer);
    }
    return { output, usage: create(UsageSchema, toUsage(spent)) };
  };
}

function hasBegun({ recorded }: Pick<StepContext, "recorded">): boolean {
  return recorded("turn1") !== undefined;
}

function reuse({ output, tokens, costUsd }: KeptAnswer, context: StepContext): StepOutput {
  const usage = create(UsageSchema, { savedTokens: BigInt(tokens), savedCostUsd: costUsd });
  context.use(usage);
  return { output, reused: true, usage };
}
