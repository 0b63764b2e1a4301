import type { JsonValue } from "@bufbuild/protobuf";
import type { StepContext, StepOutput } from "../engine/step.ts";
import type { PlanAction } from "../plan.ts";

/** What the engine does by itself: it takes no work, only time, people or expressions. */
export type EngineKind = "approval" | "value" | "wait";
export type WorkAction = Exclude<PlanAction, { kind: EngineKind }>;

/**
 * Does the work of one attempt.
 *
 * @param input what the action's templates came to, by the name of their field: `{ arguments }` for a tool and a
 *   comparison, `{ task }`, `{ text }`, `{ project, arguments }`, `{ input }`
 */
export type Work<Kind extends WorkAction["kind"] = WorkAction["kind"]> = (
  action: Extract<WorkAction, { kind: Kind }>,
  input: Readonly<Record<string, JsonValue>>,
  context: StepContext,
) => Promise<StepOutput>;

/** How each kind of step is done. */
export type Works = { readonly [Kind in WorkAction["kind"]]: Work<Kind> };

/** Calls tools on behalf of runs. */
export interface ToolCalling {
  /**
   * Calls a tool once, as the run's principal, with the run's idempotency key where the tool can take it. The result of a
   * tool that streams is the list of its results. Throws what the call throws.
   */
  call(
    call: ToolCallSpec,
    context: Pick<StepContext, "run" | "path" | "idempotencyKey" | "signal">,
  ): Promise<JsonValue>;
}

export interface ToolCallSpec {
  readonly tool: string;
  /** Empty: the default. */
  readonly environment: string;
  /** Empty: the highest that can be called. */
  readonly version: string;
  readonly arguments: JsonValue;
  /** True: the result has fields with their default value too, for expressions that look into it. Default: false. */
  readonly whole?: boolean | undefined;
  /** Default: that of tools. */
  readonly timeoutMs?: number | undefined;
}
