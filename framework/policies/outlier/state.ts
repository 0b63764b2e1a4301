import type { Outcome } from "../breaker/state.ts";

/** Why an instance was ejected. */
export type EjectionReason =
  | "consecutive-failures"
  | "success-rate"
  | "latency"
  | "hanging"
  | "probation-failed";

/** Whether calls go to an instance. Times are in milliseconds since 1970. */
export type InstanceState =
  /** They do. */
  | { readonly kind: "healthy" }
  /** None does until `returnAt`; what was going on before is not held against it any more. */
  | {
      readonly kind: "ejected";
      readonly since: number;
      readonly returnAt: number;
      readonly reason: EjectionReason;
      /** The reason with its figures, for people. */
      readonly detail: string;
    }
  /** One at a time does, until enough of them have succeeded in good time. One that does not ejects it again, for longer. */
  | { readonly kind: "probation"; readonly since: number; readonly succeeded: number };

/** What happened to an instance. `at` is in milliseconds since 1970. */
export type OutlierEvent = { readonly instance: string; readonly at: number } & (
  | {
      readonly kind: "ejected";
      readonly reason: EjectionReason;
      readonly detail: string;
      /** How often in a row. */
      readonly ejections: number;
      readonly forMs: number;
    }
  | { readonly kind: "probation" }
  | { readonly kind: "returned"; readonly by: "probation" | "reset" }
);

/** An instance at one moment. */
export interface InstanceSnapshot {
  readonly instance: string;
  readonly state: InstanceState;
  /** How often it was ejected in a row; time that it is well makes it less. */
  readonly ejections: number;
  readonly consecutiveFailures: number;
  /** Calls that ended within the window; ignored ones are not in it. */
  readonly window: { readonly calls: number; readonly failures: number };
  /** Its recent latency, in milliseconds; undefined when there is too little to tell. */
  readonly latencyMs: number | undefined;
  readonly inFlight: number;
  /** How long its oldest call has been unanswered, in milliseconds. */
  readonly oldestMs: number | undefined;
}

/** A call that has begun. */
export interface InstanceCall {
  /**
   * To be called once the call is over, however it ends; only the first time counts.
   *
   * @param durationMs how long the instance took; default: the time since the call began
   */
  end(outcome: Outcome, durationMs?: number): void;
}
