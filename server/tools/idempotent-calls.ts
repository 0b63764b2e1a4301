import { createHash } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError, invalidArgument, type Logger, toStatus } from "@toolplane/framework";
import { type Idempotency, IdempotencyError } from "@toolplane/framework/policies";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { codeOf } from "../error-code.ts";
import { inputKey } from "./call-key.ts";
import type { Dispatch } from "./dispatch.ts";
import { judgementOf } from "./judge.ts";
import type { Outcome } from "./unary.ts";

/** Lets each call that carries a request id happen once. */
export interface IdempotentCalls {
  /**
   * @param work makes the call; its signal is not that of the caller, since what has side effects is not stopped half-way
   *   because nobody waits any more
   */
  run(dispatch: Dispatch, work: (signal: AbortSignal) => Promise<Outcome>): Promise<Outcome>;
}

export function createIdempotentCalls(idempotency: Idempotency, logger: Logger): IdempotentCalls {
  return {
    async run(dispatch, work) {
      const { tool, invoker, principal, requestId, signal, path, headers } = dispatch;
      const scope = createHash("sha256")
        .update(JSON.stringify([principal.id, principal.role, tool.service, tool.environment, tool.name]))
        .digest("base64url");
      let own: Outcome | undefined;
      let failure: unknown;
      const { outcome, replayed } = await idempotency
        .run(
          { scope, requestId, fingerprint: inputKey(dispatch) },
          async (workSignal) => {
            try {
              own = await work(workSignal);
              return { kind: "success", bytes: own.output.bytes() };
            } catch (error) {
              if (!isDefinite(error)) {
                throw error;
              }
              failure = error;
              const status = toStatus(error, {
                correlationId: headers.get("x-correlation-id") ?? requestId,
                logger,
              });
              return { kind: "failure", bytes: toBinary(StatusSchema, create(StatusSchema, status)) };
            }
          },
          { signal },
        )
        .catch((error: unknown) => {
          throw error instanceof IdempotencyError ? explain(error, path) : error;
        });
      // When another process has taken the work over, what counts is its outcome.
      if (own && !replayed) {
        return own;
      }
      if (outcome.kind === "success") {
        return {
          output: invoker.restore(outcome.bytes),
          instanceId: "",
          source: ResultSource.REQUEST_ID,
        };
      }
      throw failure && !replayed ? failure : readFailure(outcome.bytes);
    },
  };
}

/**
 * Whether a repetition would fail the same way, since the tool has said so. Where that is not known, or nothing was sent,
 * it may be tried again with the same id.
 */
function isDefinite(error: unknown): boolean {
  if (!judgementOf(error)?.answered) {
    return false;
  }
  switch (codeOf(error)) {
    case Code.Canceled:
    case Code.DeadlineExceeded:
    case Code.Aborted:
    case Code.Unavailable:
    case Code.Unauthenticated:
      return false;
    case Code.ResourceExhausted:
      // It has answered, only too much.
      return error instanceof DomainError;
    default:
      return true;
  }
}

function readFailure(bytes: Uint8Array): ConnectError {
  const { code, message, details } = fromBinary(StatusSchema, bytes);
  const error = new ConnectError(message, code);
  error.details = details.map(({ typeUrl, value }) => ({
    type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1),
    value,
  }));
  return error;
}

function explain(error: IdempotencyError, path: string): DomainError {
  const { reason, message } = error;
  switch (reason) {
    case "REQUEST_ID_REUSED":
      return invalidArgument(
        [
          {
            field: `${path}.request_id`,
            reason,
            description: "it was used for a call with other arguments: a new call needs a new id",
          },
        ],
        error,
      );
    case "OUTCOME_NOT_KEPT":
      return new DomainError({ code: Code.DataLoss, reason, message, cause: error });
    case "WORK_TIMEOUT":
      return new DomainError({ code: Code.DeadlineExceeded, reason, message, cause: error });
    case "TOO_MANY_IN_FLIGHT":
      return new DomainError({
        code: Code.ResourceExhausted,
        reason,
        message,
        retryAfterMs: 1_000,
        cause: error,
      });
    case "STORE_UNAVAILABLE":
    case "LEASE_LOST":
    case "CLOSED":
      return new DomainError({ code: Code.Unavailable, reason, message, retryAfterMs: 1_000, cause: error });
  }
}
