import { randomBytes } from "node:crypto";
import { chmod, link, mkdir, open, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { invalidArgument } from "@toolplane/framework";
import type { SecretSource } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import type { Logger } from "pino";
import { describeSource, readSource } from "../config/secrets.ts";
import { codeOf } from "../storage/error-code.ts";

export interface SigningKeyOptions {
  /** Where several replicas have the same key from. Undefined: a key of this data directory. */
  readonly source: SecretSource | undefined;
  readonly dataDir: string;
  readonly env: NodeJS.ProcessEnv;
  readonly logger: Logger;
}

const FILE = "response-cache.key";
const KEY_BYTES = 32;
const MIN_LENGTH = 32;

/**
 * The secrets that kept answers are signed with: the first signs, all are taken. They are not in the database, since
 * whoever can change answers there could sign them too.
 *
 * A configured source holds one secret a line, so that one can be replaced without losing what the old one has signed.
 * Otherwise the data directory has one in a file that only this user may read, made when it is first needed.
 *
 * Throws INVALID_ARGUMENT when the configured source holds none that is long enough.
 */
export async function loadSigningKeys(options: SigningKeyOptions): Promise<readonly Uint8Array[]> {
  const { source, dataDir, env, logger } = options;
  return source === undefined ? [await ownKey(dataDir, logger)] : configuredKeys(source, env);
}

function configuredKeys(source: SecretSource, env: NodeJS.ProcessEnv): Uint8Array[] {
  const lines = (readSource(source, env) ?? "")
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "");
  if (lines.length === 0 || lines.some((line) => line.length < MIN_LENGTH)) {
    throw invalidArgument([
      {
        field: "outbound.cache.signing_key",
        description: `${describeSource(source)} must hold a secret of at least ${MIN_LENGTH} characters in each line`,
        reason: "SIGNING_KEY",
      },
    ]);
  }
  return lines.map((line) => Buffer.from(line));
}

async function ownKey(dataDir: string, logger: Logger): Promise<Uint8Array> {
  const path = join(dataDir, FILE);
  const known = await readKey(path, logger);
  if (known !== undefined) {
    return known;
  }
  await mkdir(dataDir, { mode: 0o700 }).catch((error: unknown) => {
    if (codeOf(error) !== "EEXIST") {
      throw error;
    }
  });
  // Complete before it has its name, which only one of several processes can give.
  const draft = `${path}.${randomBytes(8).toString("hex")}`;
  try {
    const file = await open(draft, "wx", 0o600);
    try {
      await file.writeFile(`${randomBytes(KEY_BYTES).toString("hex")}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await link(draft, path);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") {
      throw error;
    }
  } finally {
    await rm(draft, { force: true });
  }
  const made = await readKey(path, logger);
  if (made === undefined) {
    throw new Error(`${path} was removed while it was read`);
  }
  return made;
}

/** Undefined: there is no file, or what it held was no key and is gone. */
async function readKey(path: string, logger: Logger): Promise<Uint8Array | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") {
      return undefined;
    }
    throw error;
  }
  if (!new RegExp(`^[0-9a-f]{${KEY_BYTES * 2}}\n?$`).test(text)) {
    // Another key costs no more than the answers that are kept.
    logger.warn({ path }, "the key that kept answers are signed with is damaged; making another one");
    await rm(path, { force: true });
    return undefined;
  }
  const { mode } = await stat(path);
  if (process.platform !== "win32" && (mode & 0o077) !== 0) {
    logger.warn({ path }, "others could read the key that kept answers are signed with; now they cannot");
    await chmod(path, 0o600);
  }
  return Buffer.from(text.trim(), "hex");
}
