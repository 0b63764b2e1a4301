import type { JsonValue } from "@bufbuild/protobuf";
import type { Principal } from "@toolplane/framework";
import type { Status } from "@toolplane/gen/google/rpc/status_pb.js";
import type { Usage } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { RunEvent } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import type { PlanRetry } from "../plan.ts";

/** What everything that a run does knows of the run. */
export interface RunFacts {
  readonly id: string;
  readonly title: string;
  /** On whose behalf tools are called. */
  readonly principal: Principal;
  /** How many runs stand above it: 0 for one that a person started. */
  readonly depth: number;
  /** When the run must have ended, in milliseconds since 1970. */
  readonly deadline: number;
}

/** The kinds of events that work may tell besides those of its steps. */
export type ToldKind = Extract<
  RunEvent["kind"],
  { case: "stepProgress" | "modelDelta" | "toolSelection" | "usage" }
>;

/** One attempt of one step, as the code that does its work sees it. */
export interface StepContext {
  readonly run: RunFacts;
  /** Such as `fetch`, `notify[3]` or `review/turn1/call2`. */
  readonly path: string;
  /** From 1, over all workers that have tried. */
  readonly attempt: number;
  /** When its first attempt began, on whichever worker, in milliseconds since 1970. */
  readonly startTime: number;
  /** A UUID made of the run and the path: the same for every attempt, on every worker. */
  readonly idempotencyKey: string;
  /** Aborted when the attempt's time is over, and when the run is cancelled, has ended, or belongs to another worker. */
  readonly signal: AbortSignal;
  /** Milliseconds until the attempt's time is over. */
  readonly timeoutMs: number | undefined;
  /** Records an event of this step, in order with all others; what has to be durable before the work goes on is a nested step. */
  tell(kind: ToldKind): void;
  /** Adds to what the run has used up; recorded with the next thing that is recorded. Returns the run's total. */
  use(usage: Partial<Omit<Usage, "$typeName" | "$unknown">>): Usage;
  /**
   * Does a part of the work as a step of its own, at `path/id`. When the journal knows how it ended, that is returned and
   * nothing is done. Never throws for a failure of the part; throws when the signal is aborted, and what `execute` must
   * not swallow then.
   */
  nested(step: WorkStep): Promise<StepEnd>;
  /** What the journal knows of the part at `path/id`, without doing anything. */
  recorded(id: string): StepEnd | undefined;
}

/** Work that is done as a step. */
export interface WorkStep {
  /** The last part of its path, such as `turn1`. */
  readonly id: string;
  /** As in `RunStep.kind`. */
  readonly kind: string;
  /** As in `RunStep.target`. */
  readonly target: string;
  /** What it is given, for its event. */
  readonly input?: JsonValue | undefined;
  /** Of one attempt. Undefined: no limit of its own. */
  readonly timeoutMs: number | undefined;
  readonly retry: PlanRetry;
  /** Does the work. What it throws is the failure: see `toStatus` in the framework. */
  execute(context: StepContext): Promise<StepOutput>;
}

/** What the work of a step comes to. */
export interface StepOutput {
  readonly output: JsonValue;
  /** The run or test run that it started. */
  readonly childId?: string | undefined;
  /** True: it was an answer from the cache. */
  readonly reused?: boolean | undefined;
  /** What models have used up in it. */
  readonly usage?: Usage | undefined;
}

/** How a step ended. */
export type StepEnd =
  | ({ readonly state: "succeeded"; readonly fallback?: boolean | undefined } & StepOutput)
  | { readonly state: "failed"; readonly error: Status; readonly usage?: Usage | undefined }
  | { readonly state: "skipped"; readonly cause: "condition" | "failure" }
  | { readonly state: "cancelled" };
