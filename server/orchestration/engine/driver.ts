import type { Clock, Logger } from "@toolplane/framework";
import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { RunSource } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { Works } from "../actions/action.ts";
import { compileRun } from "../compile.ts";
import { ExpressionError } from "../expressions/expression.ts";
import type { RunPlan } from "../plan.ts";
import { createDrive, type Drive, type Verdict } from "./drive.ts";
import { CancelledError, type Engine, ReleasedError, type RunControl } from "./engine.ts";
import { type ClaimedRun, type Journal, LostRunError } from "./journal.ts";
import { createSchedule } from "./schedule.ts";
import { badExpression } from "./scope.ts";

export interface EngineOptions {
  readonly works: Works;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Draws from [0, 1). */
  readonly random: () => number;
  /** The largest output of a step, as JSON, in bytes. */
  readonly maxValueBytes: number;
  /** The largest sum of the outputs of a run, as JSON, in bytes. */
  readonly maxRunBytes: number;
  /** Default: `compileRun`. */
  readonly compile?: ((source: RunSource, agents: readonly Agent[]) => RunPlan) | undefined;
}

export function createEngine(options: EngineOptions): Engine {
  const { compile = compileRun } = options;

  function planOf({ source, agents }: ClaimedRun): RunPlan {
    try {
      const plan = compile(source, agents);
      // Throws where steps come after each other in a circle.
      createSchedule(plan.steps);
      return plan;
    } catch (error) {
      throw error instanceof ExpressionError ? badExpression("workflow", error) : error;
    }
  }

  async function drive(run: ClaimedRun, journal: Journal, control: RunControl) {
    let plan: RunPlan;
    try {
      plan = planOf(run);
    } catch (error) {
      await journal.finish({ state: "failed", error });
      return "finished";
    }
    const drive = createDrive(run, plan, journal, { ...options, onIdle: control.onIdle });
    const obey = () => {
      const { reason } = control.signal;
      if (reason instanceof ReleasedError && reason.graceMs > 0) {
        drive.rest(reason);
      } else {
        drive.stop(verdictOf(reason), reason);
      }
    };
    const stopListening = control.onAnswer(drive.look);
    control.signal.addEventListener("abort", obey, { once: true });
    try {
      if (control.signal.aborted) {
        obey();
      } else if (run.cancelled !== undefined) {
        const { by, message } = run.cancelled;
        drive.stop({ kind: "cancelled", by, message }, new CancelledError(by, message));
      } else {
        drive.begin();
      }
      return await conclude(await drive.verdict, drive, journal);
    } finally {
      stopListening();
      control.signal.removeEventListener("abort", obey);
    }
  }

  return {
    async drive(run, journal, control) {
      try {
        return await drive(run, journal, control);
      } catch (error) {
        if (error instanceof LostRunError) {
          return "left";
        }
        throw error;
      }
    },
  };
}

function verdictOf(reason: unknown): Verdict {
  if (reason instanceof CancelledError) {
    return { kind: "cancelled", by: reason.by, message: reason.message };
  }
  return { kind: reason instanceof ReleasedError ? "released" : "left" };
}

async function conclude(
  verdict: Verdict,
  drive: Drive,
  journal: Journal,
): Promise<"finished" | "parked" | "left"> {
  switch (verdict.kind) {
    case "over":
      await journal.finish(drive.end());
      return "finished";
    case "cancelled": {
      const { by, message } = verdict;
      await journal.finish({ state: "cancelled", by, message });
      return "finished";
    }
    case "timeout":
      await journal.finish({ state: "failed", error: verdict.error, output: drive.partialOutput() });
      return "finished";
    case "broken":
      throw verdict.error;
    case "released":
      await journal.release();
      return "left";
    case "parked":
    case "left":
      return verdict.kind;
  }
}
