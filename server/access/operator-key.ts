import { hash, timingSafeEqual } from "node:crypto";
import { invalidArgument, type Verifier } from "@toolplane/framework";
import type { SecretSource } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import type { Logger } from "pino";
import { describeSource, readSource } from "../config/secrets.ts";

/** Whoever shows the operator key has the principal `key:` and this; no other key may have the name. */
export const OPERATOR_KEY_NAME = "operator";
const MIN_LENGTH = 32;
/** Fits into a header as it is. */
const FORM = /^[!-~]+$/;

/**
 * Takes the one key that is not in the database. It is read with every check, so that the file that holds it may be
 * replaced; while there is none that is good, nobody is taken for its holder.
 *
 * Throws INVALID_ARGUMENT when there is none now.
 */
export function operatorKeyVerifier(source: SecretSource, env: NodeJS.ProcessEnv, logger: Logger): Verifier {
  const mistake = mistakeIn(readSource(source, env));
  if (mistake !== undefined) {
    throw invalidArgument([
      {
        field: "auth.operator_key",
        description: `${describeSource(source)} ${mistake}`,
        reason: "OPERATOR_KEY",
      },
    ]);
  }
  let usable = true;
  return {
    verify(token) {
      const key = readSource(source, env);
      const current = mistakeIn(key);
      if (usable !== (current === undefined)) {
        usable = current === undefined;
        logger[usable ? "info" : "warn"](
          usable
            ? "the operator key can be used again"
            : `the operator key cannot be used: its source ${current}`,
        );
      }
      return usable && key !== undefined && isSame(token, key)
        ? { kind: "accepted", identity: { id: `key:${OPERATOR_KEY_NAME}`, role: "operator" } }
        : { kind: "foreign" };
    },
  };
}

function mistakeIn(key: string | undefined): string | undefined {
  if (!key) {
    return "holds nothing, or cannot be read";
  }
  if (key.length < MIN_LENGTH) {
    return `holds ${key.length} characters; a key has at least ${MIN_LENGTH}, as \`openssl rand -hex 32\` makes them`;
  }
  return FORM.test(key) ? undefined : "holds spaces, or characters that are not ASCII";
}

/** Takes the same time whatever the difference: digests are of one length. */
function isSame(one: string, other: string): boolean {
  return timingSafeEqual(hash("sha256", one, "buffer"), hash("sha256", other, "buffer"));
}
