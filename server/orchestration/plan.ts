import type { Agent, ModelBudget, ToolScope } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { RunKind } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { Expression, Template } from "./expressions/expression.ts";

/** What a run does. Every kind of run is compiled into one, so that one engine runs them all. All times in milliseconds. */
export interface RunPlan {
  readonly kind: RunKind;
  readonly steps: readonly PlanStep[];
  /** How many steps and items may run at once. */
  readonly maxConcurrency: number;
  /** Counted from the making of the run. */
  readonly timeoutMs: number;
  readonly output: PlanOutput;
}

/** How the output of a run comes from its steps. */
export type PlanOutput =
  /** Evaluated when all have ended. */
  | { readonly kind: "template"; readonly template: Template }
  /** An object with the output of every step that no other comes after. */
  | { readonly kind: "leaves" }
  /** The output of the only step. */
  | { readonly kind: "single" }
  /** A list with, for each step, its output or `{ error: { code, message } }`; under the name `result` where one is given. */
  | { readonly kind: "list"; readonly name: string | undefined };

export interface PlanStep {
  /** Also its path. */
  readonly id: string;
  readonly description: string;
  /** All that it comes after: those that its expressions name too. */
  readonly dependsOn: readonly string[];
  readonly trigger: "success" | "failure" | "always";
  readonly condition: Expression | undefined;
  readonly fanOut: PlanFanOut | undefined;
  /** Of one attempt. Undefined: no limit. */
  readonly timeoutMs: number | undefined;
  readonly retry: PlanRetry;
  readonly fallback: PlanFallback | undefined;
  readonly continueOnFailure: boolean;
  readonly action: PlanAction;
}

export interface PlanFanOut {
  readonly items: Expression;
  /** Undefined: as many as the run allows. */
  readonly maxConcurrency: number | undefined;
  readonly continueOnFailure: boolean;
}

export interface PlanRetry {
  /** In all; at least 1. */
  readonly attempts: number;
  readonly initialBackoffMs: number;
  readonly maxBackoffMs: number;
}

export type PlanFallback =
  | { readonly kind: "value"; readonly value: Template }
  | { readonly kind: "tool"; readonly action: ToolPlanAction };

export interface ToolPlanAction {
  readonly kind: "tool";
  readonly tool: string;
  /** Empty: the default. */
  readonly environment: string;
  /** Empty: the highest that can be called. */
  readonly version: string;
  readonly arguments: Template;
}

/** What a step does. */
export type PlanAction =
  | ToolPlanAction
  /** The agent is pinned when the run is made. */
  | { readonly kind: "agent"; readonly agent: Agent; readonly task: Template }
  | {
      readonly kind: "requirement";
      readonly text: Template;
      /** Empty: the server's default. */
      readonly model: string;
      readonly instructions: string;
      readonly tools: ToolScope | undefined;
      readonly budget: ModelBudget | undefined;
    }
  | { readonly kind: "approval"; readonly message: Template; readonly approveOnTimeout: boolean }
  | {
      readonly kind: "test_run";
      readonly project: Template;
      readonly arguments: Template;
      readonly allowFailures: boolean;
    }
  | { readonly kind: "comparison"; readonly arguments: Template; readonly failOnRegression: boolean }
  | { readonly kind: "workflow"; readonly name: string; readonly version: number; readonly input: Template }
  | { readonly kind: "value"; readonly value: Template }
  | { readonly kind: "wait"; readonly ms: number };

export type ActionKind = PlanAction["kind"];
