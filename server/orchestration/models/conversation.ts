import type { Clock } from "@toolplane/framework";
import type { ModelBudget, ToolScope } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { Logger } from "pino";
import type { ToolCalling } from "../actions/action.ts";
import type { StepContext } from "../engine/step.ts";
import type { Redactor } from "../store/redact.ts";
import type { Limits, TimeBudget } from "./budgets.ts";
import type { Model, ModelGateway } from "./model.ts";
import type { AllowedTools, ToolSource } from "./tool-choice.ts";
import type { Toolbox } from "./toolbox.ts";

export interface ModelLoopOptions {
  readonly gateway: Pick<ModelGateway, "turn" | "costUsd">;
  readonly tools: ToolSource;
  readonly calling: ToolCalling;
  /** From more allowed tools than this on, a model searches for tools. */
  readonly searchToolsAbove: number;
  /** Keeps secrets from models, and from those who watch what they write. */
  readonly redactor: Redactor;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What a model is to do. */
export interface ModelTask {
  readonly model: Model;
  readonly instructions: string;
  readonly task: string;
  /** Undefined: all tools of the default environment. */
  readonly tools: ToolScope | undefined;
  readonly budget: ModelBudget | undefined;
  /** Whether a turn that failed is repeated by itself. False: the whole is tried again, and goes on with that turn. */
  readonly retriesTurns: boolean;
}

/** What one conversation works with. */
export interface Conversation extends ModelLoopOptions {
  readonly task: ModelTask;
  readonly limits: Limits;
  readonly allowed: AllowedTools;
  /** As counted when the work began. */
  readonly allowedCount: number;
  readonly toolbox: Toolbox;
  readonly time: TimeBudget;
  readonly context: StepContext;
}
