import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { Run, RunSource } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { optionalMilliseconds } from "../config/durations.ts";
import { runTooDeep } from "./refusals.ts";
import { stepsAnew } from "./retry.ts";
import type { NewRun, Runs } from "./runs.ts";

/** What a source comes to when it is checked, with all that it names found. */
export interface PreparedRun {
  readonly source: RunSource;
  readonly agents: readonly Agent[];
  readonly title: string;
  /** 0: none, or not kept. */
  readonly workflowVersion: number;
  /** As the source says. Undefined: it does not. */
  readonly timeoutMs: number | undefined;
  readonly labels: Readonly<Record<string, string>>;
}

/** Checks a source and finds what it names. Throws what is wrong with it. */
export type Prepare = (source: RunSource) => Promise<PreparedRun>;

/** What is asked of a run besides its source. */
export interface StartOptions extends Pick<NewRun, "principal" | "request" | "parent" | "schedule"> {
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** Default: as the source says, else 24 h. */
  readonly timeoutMs?: number | undefined;
}

/** Starts runs, whoever asks: callers, schedules, steps of other runs. */
export interface RunStarter {
  start(source: RunSource, options: StartOptions): Promise<Run>;
  /** Goes on where a run has ended; steps that are named, and all that come after them, run anew. */
  retry(
    run: Run,
    fromSteps: readonly string[],
    options: Pick<StartOptions, "principal" | "request" | "parent">,
  ): Promise<Run>;
}

const DEFAULT_TIMEOUT_MS = 24 * 3_600_000;

export function createRunStarter(options: {
  readonly prepare: Prepare;
  readonly runs: Pick<Runs, "create" | "pinned" | "requested">;
  /** How deep runs may start runs. */
  readonly maxDepth: number;
}): RunStarter {
  const { prepare, runs, maxDepth } = options;

  function refuseTooDeep({ parent }: Pick<StartOptions, "parent">): void {
    if (parent !== undefined && parent.depth > maxDepth) {
      throw runTooDeep(maxDepth);
    }
  }

  return {
    async start(source, { labels, timeoutMs, ...asked }) {
      // What it names may be gone by now.
      const known = await runs.requested(asked);
      if (known !== undefined) {
        return known;
      }
      refuseTooDeep(asked);
      const prepared = await prepare(source);
      return await runs.create({
        ...asked,
        ...prepared,
        labels: { ...prepared.labels, ...labels },
        timeoutMs: timeoutMs ?? prepared.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      });
    },

    async retry({ id, title, workflowVersion, labels }, fromSteps, asked) {
      refuseTooDeep(asked);
      const { source, agents } = await runs.pinned(id);
      return await runs.create({
        ...asked,
        source,
        agents,
        title,
        workflowVersion,
        labels,
        timeoutMs: timeoutOf(source) ?? DEFAULT_TIMEOUT_MS,
        retry: { of: id, anew: stepsAnew(source, agents, fromSteps) },
      });
    },
  };
}

function timeoutOf({ kind }: RunSource): number | undefined {
  const workflow = kind.case === "workflow" ? kind.value.workflow : undefined;
  return workflow?.case === "inline" ? optionalMilliseconds(workflow.value.timeout) : undefined;
}
