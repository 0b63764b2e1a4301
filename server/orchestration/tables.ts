import type { Principal } from "@toolplane/framework";
import type { ColumnType } from "kysely";

/** `bigint` is read as text; numbers of runs and events stay far below 2^53. */
type BigInteger = ColumnType<string, number | string, number | string>;
type Time = ColumnType<Date, Date, Date>;
type Optional<T> = ColumnType<T | null, T | null | undefined, T | null>;
/** Has a default. */
type Defaulted<T> = ColumnType<T, T | undefined, T>;
type Json<T> = ColumnType<T, string, string>;

export interface RunsTable {
  /** Counts runs in the order in which they were made. */
  number: ColumnType<string, never, never>;
  id: string;
  /** A toolplane.orchestration.v1.RunKind. */
  kind: number;
  title: string;
  /** The workflow or the agents, for those who look for their runs. */
  names: string[];
  workflow_version: number;
  /** A toolplane.orchestration.v1.RunState. */
  state: number;
  /** A toolplane.orchestration.v1.RunSource. */
  source: Buffer;
  /** toolplane.orchestration.v1.Agents. */
  agents: Buffer[];
  /** JSON text. */
  input: Buffer | null;
  /** JSON text. */
  output: Optional<Buffer>;
  /** A google.rpc.Status. */
  error: Optional<Buffer>;
  labels: Json<Record<string, string>>;
  created_by: string;
  principal: Json<Principal>;
  request_id: string | null;
  request_fingerprint: string | null;
  /** Empty: none. */
  retry_of: string;
  /** Empty: none. */
  parent_run_id: string;
  depth: number;
  /** Empty: none. */
  schedule: string;
  deadline: Time;
  create_time: Time;
  start_time: Optional<Date>;
  end_time: Optional<Date>;
  epoch: Defaulted<number>;
  /** Null: nobody has the run. */
  worker: Optional<string>;
  /** The one job by which the run can be claimed. */
  job_id: Optional<string>;
  /** How often the job had been fetched before when the run was claimed with it. Null: it was not yet. */
  job_retry: Optional<number>;
  takeovers: Defaulted<number>;
  /** Takeovers since a step last ended. */
  barren_takeovers: Defaulted<number>;
  /** The steps that are known before anything runs were told. */
  planned: Defaulted<boolean>;
  /** Null: nobody wants it to stop. */
  cancel_by: Optional<string>;
  cancel_message: Optional<string>;
  /** A toolplane.orchestration.v1.StepCounts. */
  counts: Defaulted<Buffer>;
  /** A toolplane.orchestration.v1.Usage. */
  usage: Defaulted<Buffer>;
  last_sequence: BigInteger;
}

export interface RunStepsTable {
  run: BigInteger;
  path: string;
  /** The order in which the steps of a run were first known. */
  position: number;
  kind: string;
  target: string;
  /** A toolplane.orchestration.v1.StepState. */
  state: number;
  attempts: number;
  /** Attempts that failed and were to be followed by another. */
  failures: Defaulted<number>;
  start_time: Optional<Date>;
  end_time: Optional<Date>;
  wake_time: Optional<Date>;
  /** JSON text. */
  output: Optional<Buffer>;
  output_bytes: BigInteger;
  /** A google.rpc.Status. */
  error: Optional<Buffer>;
  fallback: Defaulted<boolean>;
  reused: Defaulted<boolean>;
  /** A toolplane.orchestration.v1.Usage. */
  usage: Optional<Buffer>;
  /** Empty: none. */
  child_id: Defaulted<string>;
  /** Null: it has not asked a person. */
  approval_message: Optional<string>;
  approval_time: Optional<Date>;
  approval_deadline: Optional<Date>;
  /** Null: nobody has answered. */
  answer_time: Optional<Date>;
  answer_approved: Optional<boolean>;
  answer_comment: Optional<string>;
  answer_by: Optional<string>;
  /** The run has taken note of the answer. */
  answer_taken: Defaulted<boolean>;
}

/** Workflows and agents, in versions. */
export interface OrchestrationDefinitionsTable {
  /** What is defined; numbered by those who define. */
  kind: number;
  name: string;
  /** From 1. */
  version: number;
  /** The message. */
  definition: Buffer;
  etag: string;
  created_by: string;
  create_time: Time;
}

/** When workflows start by themselves. */
export interface WorkflowSchedulesTable {
  workflow: string;
  /** Among the workflow's schedules. */
  position: number;
  workflow_version: number;
  cron: string;
  time_zone: string;
  /** JSON text. */
  input: Optional<Buffer>;
  /** Null: it starts nothing any more. */
  next_time: Optional<Date>;
  /** On whose behalf. */
  principal: Json<Principal>;
}

/** The tables of orchestration. What happens in runs is in the event log. */
export interface OrchestrationTables {
  runs: RunsTable;
  run_steps: RunStepsTable;
  orchestration_definitions: OrchestrationDefinitionsTable;
  workflow_schedules: WorkflowSchedulesTable;
}
