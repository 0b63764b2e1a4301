import { readFileSync } from "node:fs";
import { Code } from "@connectrpc/connect";
import { checkListenAddress, DomainError, invalidArgument, type TlsOptions } from "@toolplane/framework";
import type { Settings } from "./config/settings.ts";

/** Reads the files that TLS needs. Undefined: the server speaks cleartext. Throws INVALID_ARGUMENT. */
export function readTls({ tls }: Pick<Settings, "tls">): TlsOptions | undefined {
  return (
    tls && {
      cert: readPem("tls.cert_file", tls.certFile),
      key: readPem("tls.key_file", tls.keyFile),
      ...(tls.clientCaFile && { clientCa: readPem("tls.client_ca_file", tls.clientCaFile) }),
    }
  );
}

function readPem(field: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw invalidArgument([{ field, description: `the file cannot be read: ${why}` }], error);
  }
}

/** Throws FAILED_PRECONDITION that names the setting, before a database is started for nothing. */
export async function refuseUnusableAddress({ listen }: Pick<Settings, "listen">): Promise<void> {
  try {
    await checkListenAddress(listen);
  } catch (error) {
    if (!(error instanceof DomainError) || error.init.code !== Code.FailedPrecondition) {
      throw error;
    }
    throw new DomainError({
      ...error.init,
      preconditions: [
        {
          type: "CONFIGURATION",
          subject: "listen",
          description:
            "Choose another address with --listen, TOOLPLANE_LISTEN or listen; port 0 takes a free one.",
        },
      ],
    });
  }
}
