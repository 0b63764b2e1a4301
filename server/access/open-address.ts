import { Code } from "@connectrpc/connect";
import { DomainError, isLoopback } from "@toolplane/framework";
import type { Settings } from "../config/settings.ts";

/** Where callers are not authenticated, an address that others can reach has to be asked for. Throws FAILED_PRECONDITION. */
export function refuseOpenAddress({
  listen,
  allowUnauthenticatedRemoteAccess,
  auth,
  tls,
}: Pick<Settings, "listen" | "allowUnauthenticatedRemoteAccess" | "auth" | "tls">): void {
  if (isLocal(listen) || auth.required || tls?.clientCaFile || allowUnauthenticatedRemoteAccess) {
    return;
  }
  throw new DomainError({
    code: Code.FailedPrecondition,
    reason: "UNAUTHENTICATED_REMOTE_ACCESS",
    message: `${listen} can be reached from other machines, and callers are not authenticated`,
    preconditions: [
      {
        type: "CONFIGURATION",
        subject: "auth.required",
        description:
          "Listen on 127.0.0.1, or ask callers for keys with auth.required and TOOLPLANE_OPERATOR_KEY, or for certificates with tls.client_ca_file, or set allow_unauthenticated_remote_access to true where the network is trusted.",
      },
    ],
  });
}

/** Whether only this machine can reach `host:port`. */
export function isLocal(listen: string): boolean {
  return isLoopback(listen.slice(0, listen.lastIndexOf(":")).replace(/^\[|\]$/g, ""));
}
