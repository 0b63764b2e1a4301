import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Usage, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";

/** The sum of what was used up; a new message. */
export function addUsage(total: Usage, more: MessageInitShape<typeof UsageSchema>): Usage {
  return create(UsageSchema, {
    turns: total.turns + (more.turns ?? 0),
    inputTokens: total.inputTokens + (more.inputTokens ?? 0n),
    cachedInputTokens: total.cachedInputTokens + (more.cachedInputTokens ?? 0n),
    outputTokens: total.outputTokens + (more.outputTokens ?? 0n),
    costUsd: total.costUsd + (more.costUsd ?? 0),
    costIncomplete: total.costIncomplete || (more.costIncomplete ?? false),
    toolCalls: total.toolCalls + (more.toolCalls ?? 0),
    savedTokens: total.savedTokens + (more.savedTokens ?? 0n),
    savedCostUsd: total.savedCostUsd + (more.savedCostUsd ?? 0),
  });
}
