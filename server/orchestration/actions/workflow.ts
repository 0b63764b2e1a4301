import { create, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { StepProgressSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { type Run, RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { CancelledError } from "../engine/engine.ts";
import { isTransient } from "../engine/retry-delay.ts";
import type { StepContext } from "../engine/step.ts";
import { runTooDeep } from "../refusals.ts";
import type { Work } from "./action.ts";
import { childKey, stopsWithStep } from "./children.ts";
import { objectOf } from "./own-tools.ts";

/** Runs that steps start. */
export interface Children {
  /**
   * Starts the newest version of a workflow, or the one that is named, as a child of the step's run and on behalf of its
   * principal. Repeated with the same `idempotencyKey`, which is a UUID, it returns the same run.
   */
  start(
    name: string,
    version: number,
    input: JsonObject,
    context: Pick<StepContext, "run" | "path" | "idempotencyKey">,
  ): Promise<Run>;
  /** Resolves with the run when it has ended. Rejects when the signal is aborted. */
  wait(runId: string, signal: AbortSignal): Promise<Run>;
  cancel(runId: string, by: string, message: string): Promise<unknown>;
}

export interface WorkflowWorkOptions {
  readonly children: Children;
  /** How deep runs may start runs. */
  readonly maxDepth: number;
}

/** Starts another workflow and waits for its end. The output is its output. */
export function createWorkflowWork({ children, maxDepth }: WorkflowWorkOptions): Work<"workflow"> {
  async function follow(run: Run, context: StepContext): Promise<Run> {
    context.tell({
      case: "stepProgress",
      value: create(StepProgressSchema, { message: `run ${run.id}`, childId: run.id }),
    });
    try {
      return hasEnded(run) ? run : await children.wait(run.id, context.signal);
    } catch (error) {
      if (stopsWithStep(context.signal)) {
        const { reason } = context.signal;
        const by = reason instanceof CancelledError ? reason.by : context.run.principal.id;
        await children
          .cancel(run.id, by, `the run ${context.run.id} that started it was stopped`)
          // It has ended, or ends by its own timeout.
          .catch(() => undefined);
      }
      throw error;
    }
  }

  return async ({ name, version }, input, context) => {
    if (context.run.depth >= maxDepth) {
      throw runTooDeep(maxDepth);
    }
    for (let index = 0; ; index++) {
      const idempotencyKey = childKey(context.idempotencyKey, index);
      const started = await children.start(name, version, objectOf(input["input"]), {
        ...context,
        idempotencyKey,
      });
      // A failure that an attempt before has seen.
      const isOld = hasEnded(started);
      const ended = await follow(started, context);
      if (ended.state === RunState.SUCCEEDED) {
        return { output: outputOf(ended), childId: ended.id };
      }
      const failure = childFailed(name, ended);
      if (!isOld || !isTransient(failure.init.code) || index + 1 >= context.attempt) {
        throw failure;
      }
    }
  };
}

function hasEnded({ state }: Run): boolean {
  switch (state) {
    case RunState.SUCCEEDED:
    case RunState.FAILED:
    case RunState.CANCELLED:
      return true;
    default:
      return false;
  }
}

function outputOf({ output }: Run): JsonValue {
  return output ? toJson(ValueSchema, output) : null;
}

/** With the code of what the child failed with, so that it is tried again only when that may pass. */
function childFailed(workflow: string, { id, state, error }: Run): DomainError {
  const cancelled = state === RunState.CANCELLED;
  const what = cancelled ? "was cancelled" : "failed";
  return new DomainError({
    code: cancelled ? Code.FailedPrecondition : codeOf(error?.code),
    reason: "CHILD_RUN_FAILED",
    message: `Run "${id}" of workflow "${workflow}" ${what}${error?.message ? `: ${error.message}` : ""}`,
    metadata: { run_id: id, workflow },
    resource: { type: "run", name: id },
  });
}

/** `google.rpc.Status` numbers codes as Connect does. */
function codeOf(code: number | undefined): Code {
  return code !== undefined && code in Code ? code : Code.FailedPrecondition;
}
