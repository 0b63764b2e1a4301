import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";

/** The code that a caller is told for an error, whatever kind of error it is. */
export function codeOf(error: unknown): Code {
  return error instanceof DomainError ? error.init.code : ConnectError.from(error, Code.Unknown).code;
}
