import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";

/** Something about the installation that has to be changed before a database can be opened. */
export function storageConfigurationError(
  reason: string,
  subject: "TOOLPLANE_DATA_DIR" | "TOOLPLANE_DATABASE_URL",
  message: string,
  cause?: unknown,
): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason,
    message,
    preconditions: [{ type: "CONFIGURATION", subject, description: message }],
    cause,
  });
}
