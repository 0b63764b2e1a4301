import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { createRegistry, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError, invalidArgument } from "@toolplane/framework";
import {
  file_toolplane_config_v1_server_config,
  ServerConfigSchema,
} from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { parseDocument } from "yaml";
import { parseMessageJson } from "../schema/index.ts";
import { resolveSettings, type Settings } from "./settings.ts";

/** What a command line may say; it wins over the environment, which wins over the file. */
export interface ConfigOverrides {
  readonly listen?: string | undefined;
  readonly dataDir?: string | undefined;
  readonly databaseUrl?: string | undefined;
  /** The YAML file. Unset: `TOOLPLANE_CONFIG`. */
  readonly config?: string | undefined;
}

/** The environment variable that holds the operator key; it wins over `auth.operator_key`. */
const OPERATOR_KEY = "TOOLPLANE_OPERATOR_KEY";
const MAX_CONFIG_BYTES = 1024 * 1024;
const registry = createRegistry(file_toolplane_config_v1_server_config);

/**
 * Reads and checks the configuration.
 *
 * Throws `invalidArgument` whose fields are paths into `ServerConfig`, such as `pool.max_connections`, or
 * FAILED_PRECONDITION when the file cannot be read.
 */
export function loadSettings(overrides: ConfigOverrides, env: NodeJS.ProcessEnv): Settings {
  const file = overrides.config || env["TOOLPLANE_CONFIG"];
  const json = file ? readConfigFile(file) : {};
  if (json === null || typeof json !== "object" || Array.isArray(json)) {
    throw invalidArgument([
      { field: "", description: `${file} must hold a mapping of ServerConfig's fields` },
    ]);
  }
  const merged: JsonObject = { ...json };
  set(merged, "listen", "listen", overrides.listen || env["TOOLPLANE_LISTEN"]);
  set(merged, "data_dir", "dataDir", overrides.dataDir || env["TOOLPLANE_DATA_DIR"]);
  set(merged, "database_url", "databaseUrl", overrides.databaseUrl || env["TOOLPLANE_DATABASE_URL"]);
  set(merged, "redis_url", "redisUrl", env["TOOLPLANE_REDIS_URL"]);
  if (env[OPERATOR_KEY]) {
    // Left to the check when it is no mapping.
    merged["auth"] = withOperatorKey(merged["auth"] ?? {});
  }
  const config = parseMessageJson(ServerConfigSchema, merged, { registry, names: "proto" });
  return resolveSettings(config, file ? dirname(file) : ".", env);
}

/** Replaces a value under either of the two spellings that Protobuf JSON allows. */
function set(json: JsonObject, name: string, jsonName: string, value: string | undefined): void {
  if (value) {
    delete json[jsonName];
    json[name] = value;
  }
}

function withOperatorKey(auth: JsonValue): JsonValue {
  if (auth === null || typeof auth !== "object" || Array.isArray(auth)) {
    return auth;
  }
  const { operatorKey: _, ...others } = auth;
  return { ...others, operator_key: { env: OPERATOR_KEY } };
}

function readConfigFile(file: string): JsonValue {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new DomainError({
      code: Code.FailedPrecondition,
      reason: "CONFIG_UNREADABLE",
      message: `The configuration file ${file} cannot be read: ${error instanceof Error ? error.message : error}`,
      preconditions: [
        {
          type: "CONFIGURATION",
          subject: "TOOLPLANE_CONFIG",
          description: "Name a YAML file that can be read.",
        },
      ],
      cause: error,
    });
  }
  if (text.length > MAX_CONFIG_BYTES) {
    throw invalidArgument([{ field: "", description: `${file} is larger than 1 MiB` }]);
  }
  const document = parseDocument(text, { prettyErrors: true });
  const [mistake] = document.errors;
  if (mistake) {
    throw invalidArgument(
      [{ field: "", description: `${file} is not valid YAML: ${mistake.message}` }],
      mistake,
    );
  }
  return (document.toJS({ maxAliasCount: 100 }) ?? {}) as JsonValue;
}
