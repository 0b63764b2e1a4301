import { readFileSync } from "node:fs";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError, notFound } from "@toolplane/framework";
import type { Secret } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";

/** Reads secrets by name, for one destination. */
export interface SecretResolver {
  /**
   * The value of a secret that is to be sent to `endpoint`. It is read on every call, so that a file may be rotated.
   * Throws when there is no such secret, when it may not be sent there, or when its source is empty.
   */
  resolve(name: string, endpoint: string): string;
}

export function createSecretResolver(secrets: readonly Secret[], env: NodeJS.ProcessEnv): SecretResolver {
  const byName = new Map(secrets.map((secret) => [secret.name, secret]));
  return {
    resolve(name, endpoint) {
      const secret = byName.get(name);
      if (!secret) {
        throw notFound("secret", name, "add it to `secrets` in the server's configuration");
      }
      const { host, hostname } = new URL(endpoint);
      if (!secret.hosts.some((allowed) => allowed === host || allowed === hostname)) {
        throw new DomainError({
          code: Code.PermissionDenied,
          reason: "SECRET_NOT_ALLOWED_FOR_HOST",
          message: `Secret "${name}" may not be sent to ${host}: add the host to the secret's \`hosts\` in the server's configuration`,
          metadata: { secret: name, host },
        });
      }
      return read(secret, env);
    },
  };
}

function read(secret: Secret, env: NodeJS.ProcessEnv): string {
  const value = readSource(secret, env);
  if (!value) {
    throw new DomainError({
      code: Code.FailedPrecondition,
      reason: "SECRET_UNAVAILABLE",
      message: `Secret "${secret.name}" has no value: set ${describeSource(secret)}`,
      preconditions: [
        {
          type: "CONFIGURATION",
          subject: describeSource(secret),
          description: `Holds the secret "${secret.name}".`,
        },
      ],
    });
  }
  return value;
}

/** What a source holds now; undefined where it cannot be read. */
export function readSource({ source }: Pick<Secret, "source">, env: NodeJS.ProcessEnv): string | undefined {
  switch (source.case) {
    case "env":
      return env[source.value];
    case "file":
      try {
        return readFileSync(source.value, "utf8").replace(/\r?\n$/, "");
      } catch {
        // An unreadable file is reported like an empty one: the caller must not learn more about our disk.
        return undefined;
      }
    case undefined:
      return undefined;
  }
}

export function describeSource({ source }: Pick<Secret, "source">): string {
  return source.case === "env" ? `the environment variable ${source.value}` : `its file`;
}

/** How long values of secrets are taken to be what they were when they were last read, in milliseconds. */
const VALUES_TTL_MS = 5_000;

/** All values that sources hold, read again from time to time, so that they can be kept out of what is told. */
export function createSecretValues(
  sources: readonly Pick<Secret, "source">[],
  env: NodeJS.ProcessEnv,
  clock: Clock,
): () => readonly string[] {
  let values: readonly string[] = [];
  let readAt = Number.NEGATIVE_INFINITY;
  return () => {
    const now = clock.monotonic();
    if (now - readAt >= VALUES_TTL_MS) {
      values = sources.flatMap((source) => readSource(source, env) ?? []);
      readAt = now;
    }
    return values;
  };
}
