import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";

const TRANSIENT = new Set([Code.Unavailable, Code.Aborted, Code.DeadlineExceeded, Code.ResourceExhausted]);

/** Whether what failed with this error may succeed when it is done again as it is: the statement is not at fault. */
export function isTransientDatabaseError(error: unknown): boolean {
  return error instanceof DomainError && TRANSIENT.has(error.init.code);
}
