import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError, errorDomain } from "@toolplane/framework";
import { classifyFailure } from "@toolplane/framework/interceptors";
import type { Failure, Outcome } from "@toolplane/framework/policies";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { neverReached } from "../backends/unreached.ts";

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
  /** What went wrong, for people. */
  readonly text: string;
}

export interface FailedAttempt {
  readonly error: unknown;
  /** Aborted when the caller left or time was up. */
  readonly signal: AbortSignal;
  /** Whether the attempt had as long as such calls usually take: a caller in a hurry proves nothing. */
  readonly hadTime: boolean;
}

const nobody = { instance: "ignored", service: "ignored", tool: "ignored" } as const;
const everyone = { instance: "failure", service: "failure", tool: "failure" } as const;
const onlyTool = { instance: "ignored", service: "ignored", tool: "failure" } as const;
const permanent = { kind: "permanent" } as const;

/** The caller left before anything could be said. */
export const abandoned: Judgement = { ...nobody, retry: permanent, text: "the caller left" };

/**
 * Who is to blame when an attempt fails. Mistakes of the caller are nobody's fault. What can be the matter with one
 * instance, such as a broken connection or no answer, counts for it and for all that it belongs to. What an application
 * says of itself, such as INTERNAL, counts for the tool only: other tools of the instance may be in good order.
 */
export function judge({ error, signal, hadTime }: FailedAttempt): Judgement {
  const failure = toConnectError(error);
  const text = `${Code[failure.code]}: ${failure.rawMessage}`;
  if (signal.aborted) {
    const blamed = failure.code === Code.DeadlineExceeded && hadTime ? everyone : nobody;
    return { ...blamed, retry: permanent, text };
  }
  const retry = neverReached(error) ? ({ kind: "transient", unsent: true } as const) : classifyFailure(error);
  return { ...blamedFor(failure, error, hadTime), retry, text };
}

function blamedFor(
  failure: ConnectError,
  error: unknown,
  hadTime: boolean,
): typeof nobody | typeof everyone | typeof onlyTool {
  switch (failure.code) {
    case Code.Unavailable:
      return everyone;
    case Code.DeadlineExceeded:
      return hadTime ? everyone : nobody;
    case Code.Internal:
    case Code.Unknown:
    case Code.DataLoss:
      // An error that was sent is the application's; one that we found is in the frames that the instance sent.
      return failure.isWireError || error instanceof DomainError ? onlyTool : everyone;
    default:
      return nobody;
  }
}

function toConnectError(error: unknown): ConnectError {
  return error instanceof DomainError
    ? new ConnectError(error.message, error.init.code, undefined, undefined, error)
    : ConnectError.from(error, Code.Unknown);
}

/** The instance does not answer, so the call was taken away from it. */
export function takenAway(instanceId: string): ConnectError {
  return new ConnectError(`instance ${instanceId} does not answer`, Code.Unavailable, undefined, [
    { desc: ErrorInfoSchema, value: { reason: "INSTANCE_HANGS", domain: errorDomain } },
  ]);
}
