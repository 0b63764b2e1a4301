import { create, fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { type RunSource, RunSourceSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { WorkflowSchema } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { createFakeClock, type FakeClock } from "../../../../framework/test-support/fake-clock.ts";
import { silentLogger } from "../../../storage/silent-logger.ts";
import type { Works } from "../../actions/action.ts";
import { createEngine, type EngineOptions } from "../driver.ts";
import type { Engine, RunControl } from "../engine.ts";
import type { StepContext, StepOutput } from "../step.ts";
import { type ClaimOptions, createMemoryRun, type MemoryRun } from "./memory-journal.ts";

/** What a tool does in a test. */
export type Tool = (
  input: JsonValue,
  context: StepContext,
) => JsonValue | StepOutput | Promise<JsonValue | StepOutput>;

export interface Driving {
  readonly clock: FakeClock;
  readonly run: MemoryRun;
  readonly engine: Engine;
  /** Of a worker that is never told to stop. */
  readonly control: RunControl;
  /** One worker has the run, until it lets go of it. */
  drive(
    options?: ClaimOptions & {
      readonly signal?: AbortSignal;
      /** The worker is not told of answers. */
      readonly isDeaf?: boolean;
    },
  ): Promise<"finished" | "parked" | "left">;
  /** How often each tool was called. */
  readonly calls: Map<string, number>;
  /** How many tools ran at once, at most. */
  readonly most: () => number;
}

export function workflow(definition: JsonObject, input: JsonObject = {}): RunSource {
  const inline = fromJson(WorkflowSchema, { name: "test", ...definition });
  return create(RunSourceSchema, {
    kind: { case: "workflow", value: { workflow: { case: "inline", value: inline }, input } },
  });
}

/** A run that calls tools that are functions. Time stands still unless it is moved. */
export function setUpDriving(
  source: RunSource,
  tools: Readonly<Record<string, Tool>>,
  options: Partial<EngineOptions> & { readonly timeoutMs?: number } = {},
): Driving {
  const clock = createFakeClock();
  const { timeoutMs } = options;
  const run = createMemoryRun({ source, clock, ...(timeoutMs && { timeoutMs }) });
  const { works, calls, most } = createTools(tools);
  const engine = createEngine({
    works,
    clock,
    logger: silentLogger,
    random: () => 0.5,
    maxValueBytes: 1 << 20,
    maxRunBytes: 64 << 20,
    ...options,
  });
  const control: RunControl = { signal: new AbortController().signal, onAnswer: run.onAnswer };
  return {
    clock,
    run,
    calls,
    most,
    engine,
    control,
    drive({ signal = control.signal, isDeaf = false, ...claim } = {}) {
      const { run: claimed, journal } = run.claim(claim);
      return engine.drive(claimed, journal, {
        signal,
        onAnswer: isDeaf ? () => () => {} : run.onAnswer,
      });
    },
  };
}

/** Works that know only tools. */
export function createTools(tools: Readonly<Record<string, Tool>>): {
  readonly works: Works;
  readonly calls: Map<string, number>;
  readonly most: () => number;
} {
  const calls = new Map<string, number>();
  let running = 0;
  let most = 0;
  const unused = () => Promise.reject(new Error("not part of the test"));
  const works: Works = {
    async tool({ tool }, input, context) {
      calls.set(tool, (calls.get(tool) ?? 0) + 1);
      running += 1;
      most = Math.max(most, running);
      try {
        const result = await tools[tool]?.(input["arguments"] ?? null, context);
        return isOutput(result) ? result : { output: result ?? null };
      } finally {
        running -= 1;
      }
    },
    agent: unused,
    requirement: unused,
    test_run: unused,
    comparison: unused,
    workflow: unused,
  };
  return { works, calls, most: () => most };
}

function isOutput(result: JsonValue | StepOutput | undefined): result is StepOutput {
  return typeof result === "object" && result !== null && "output" in result && !Array.isArray(result);
}

/** Lets everything happen that does not wait for the clock. */
export const settled = () => new Promise<void>((resolve) => setImmediate(resolve));
