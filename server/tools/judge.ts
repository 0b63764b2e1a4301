import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError, errorDomain } from "@toolplane/framework";
import { classifyFailure } from "@toolplane/framework/interceptors";
import type { Failure, Outcome } from "@toolplane/framework/policies";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { neverReached } from "../backends/unreached.ts";
import type { Patience } from "./latencies.ts";

/** What the end of an attempt says about those who took part in it. */
export interface Judgement {
  /** About the instance. */
  readonly instance: Outcome;
  /** About the service, if its other instances do no better. */
  readonly service: Outcome;
  /** About the tool, if it fares no better on other instances. */
  readonly tool: Outcome;
  /** Whether another attempt makes sense. */
  readonly retry: Failure;
  /** Whether the tool itself has said how the call ended. If not, nobody knows what it has done. */
  readonly answered: boolean;
  /** What went wrong, for people. */
  readonly text: string;
}

export interface FailedAttempt {
  readonly error: unknown;
  /** Aborted when the caller left or time was up. */
  readonly signal: AbortSignal;
  /** What it means that the attempt has taken as long as it has. */
  readonly patience: Patience;
}

type Blame = Pick<Judgement, "instance" | "service" | "tool">;
const nobody: Blame = { instance: "ignored", service: "ignored", tool: "ignored" };
const everyone: Blame = { instance: "failure", service: "failure", tool: "failure" };
const onlyTool: Blame = { instance: "ignored", service: "ignored", tool: "failure" };
const permanent: Failure = { kind: "permanent" };

/** The caller left before anything could be said. */
export const abandoned: Judgement = {
  ...nobody,
  retry: permanent,
  answered: false,
  text: "the caller left",
};

/** What is said of a tool's answer where no frame of the wire carries it. */
const ANSWERS = new Set(["HTTP_STATUS", "INVALID_RESULT", "RESULT_TOO_LARGE"]);

/**
 * Who is to blame when an attempt fails. Mistakes of the caller are nobody's fault. What can be the matter with one
 * instance, such as a broken connection or no answer, counts for it and for all that it belongs to. What an application
 * says of itself, such as INTERNAL, counts for the tool only: other tools of the instance may be in good order.
 */
export function judge({ error, signal, patience }: FailedAttempt): Judgement {
  const failure = toConnectError(error);
  const text = `${Code[failure.code]}: ${failure.rawMessage}`;
  if (signal.aborted) {
    const blame = failure.code === Code.DeadlineExceeded ? blamedForDelay(patience) : nobody;
    return { ...blame, retry: permanent, answered: false, text };
  }
  const answered = failure.isWireError || ANSWERS.has(reasonOf(error));
  return { ...blamedFor(failure, answered, patience), retry: retryOf(error, answered), answered, text };
}

function retryOf(error: unknown, answered: boolean): Failure {
  if (neverReached(error)) {
    return { kind: "transient", unsent: true };
  }
  // A stream that was reset, or frames that make no sense: another instance may do better.
  const broken = error instanceof ConnectError && !answered && isBroken(error.code);
  return broken ? { kind: "transient" } : classifyFailure(error);
}

function isBroken(code: Code): boolean {
  return code === Code.Internal || code === Code.Unknown || code === Code.DataLoss;
}

function blamedFor(failure: ConnectError, answered: boolean, patience: Patience): Blame {
  switch (failure.code) {
    case Code.Unavailable:
      return everyone;
    case Code.DeadlineExceeded:
      return blamedForDelay(patience);
    case Code.Internal:
    case Code.Unknown:
    case Code.DataLoss:
      // What the application did not say is in the frames that the instance sent, or left out.
      return answered ? onlyTool : everyone;
    default:
      return nobody;
  }
}

function blamedForDelay(patience: Patience): Blame {
  switch (patience) {
    case "ample":
      return everyone;
    case "unproven":
      return onlyTool;
    case "short":
      return nobody;
  }
}

function toConnectError(error: unknown): ConnectError {
  return error instanceof DomainError
    ? new ConnectError(error.message, error.init.code, undefined, undefined, error)
    : ConnectError.from(error, Code.Unknown);
}

/** The reason that the server's own parts have given an error; empty: none. */
function reasonOf(error: unknown): string {
  if (error instanceof DomainError) {
    return error.init.reason;
  }
  const info =
    error instanceof ConnectError && !error.isWireError ? error.findDetails(ErrorInfoSchema)[0] : undefined;
  return info?.domain === errorDomain ? info.reason : "";
}

/** The instance does not answer, so the call was taken away from it. */
export function takenAway(instanceId: string): ConnectError {
  return new ConnectError(`instance ${instanceId} does not answer`, Code.Unavailable, undefined, [
    { desc: ErrorInfoSchema, value: { reason: "INSTANCE_HANGS", domain: errorDomain } },
  ]);
}

const judgements = new WeakMap<object, Judgement>();

/** Remembers what is known about an error that goes to a caller. Returns the error. */
export function judged<T extends object>(error: T, judgement: Judgement): T {
  judgements.set(error, judgement);
  return error;
}

/** What is known about an error that a call failed with; undefined: it was not sent, or its caller did not wait. */
export function judgementOf(error: unknown): Judgement | undefined {
  return typeof error === "object" && error !== null ? judgements.get(error) : undefined;
}
