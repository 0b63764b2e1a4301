import { Code } from "@connectrpc/connect";
import {
  type Authentication,
  authenticate,
  type Clock,
  cachedVerifier,
  createKeySource,
  DomainError,
  isLoopback,
  jwtVerifier,
  type Verifier,
} from "@toolplane/framework";
import type { Logger } from "pino";
import type { JwtSettings } from "../config/auth.ts";
import type { Settings } from "../config/settings.ts";
import type { Database } from "../storage/database.ts";
import { type Keys, openKeys } from "./keys.ts";
import { isLocal } from "./open-address.ts";
import { operatorKeyVerifier } from "./operator-key.ts";

export interface AccessOptions {
  readonly database: Pick<Database, "kysely" | "listen">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly settings: Pick<Settings, "auth" | "listen" | "tls">;
  /** Where the operator key may be read from. */
  readonly env: NodeJS.ProcessEnv;
}

/** Who may call. */
export interface Access extends Pick<Authentication, "gate" | "check"> {
  /** Whether callers have to be asked, with `gate` or `check`. */
  readonly required: boolean;
  /** There whether they are needed or not: the first ones are made before they are asked for. */
  readonly keys: Keys;
  close(): Promise<void>;
}

/**
 * Throws INVALID_ARGUMENT when the operator key is not fit to be used, and FAILED_PRECONDITION when credentials are
 * required and nobody could ever make any.
 */
export async function createAccess({
  database,
  clock,
  logger,
  settings,
  env,
}: AccessOptions): Promise<Access> {
  const { required, operatorKey, jwt } = settings.auth;
  const others: Verifier[] = [];
  if (required && jwt) {
    others.push(createJwtVerifier(jwt, clock, logger));
  }
  if (required && operatorKey) {
    others.push(operatorKeyVerifier(operatorKey, env, logger));
  }
  const keys = await openKeys({ database, clock, logger });
  if (required && others.length === 0 && !keys.hasActive("operator")) {
    await keys.close();
    throw nobodyIn();
  }
  if (required && !settings.tls && !isLocal(settings.listen)) {
    logger.warn(
      { listen: settings.listen },
      "credentials come in without encryption: set tls, or let nothing but a proxy with TLS reach this address",
    );
  }
  const { gate, check } = authenticate({ verifiers: [keys, ...others], clock });
  return { required, gate, check, keys, close: () => keys.close() };
}

/** Signatures take their time, so what is known of a token is kept for a minute, or until the token expires. */
function createJwtVerifier(
  { jwksUrl, issuer, audience, subjectClaim, rolesClaim, roles }: JwtSettings,
  clock: Clock,
  logger: Logger,
): Verifier {
  const { protocol, hostname } = new URL(jwksUrl);
  if (protocol === "http:" && !isLoopback(hostname)) {
    logger.warn(
      { jwksUrl },
      "the keys that tokens are checked with come without encryption: whoever is on the way can put keys of their own there, and be anyone; set auth.jwt.jwks_url to an address with https",
    );
  }
  const keys = createKeySource({ url: jwksUrl, clock, logger });
  const verifier = jwtVerifier({ keys, issuer, audience, subjectClaim, rolesClaim, roles, clock });
  return cachedVerifier(verifier, { clock });
}

function nobodyIn(): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "NO_CREDENTIALS_POSSIBLE",
    message: "auth.required is set, and there is no key with which keys could be made",
    preconditions: [
      {
        type: "CONFIGURATION",
        subject: "TOOLPLANE_OPERATOR_KEY",
        description:
          "Set it, or auth.operator_key, to a secret of at least 32 characters, as `openssl rand -hex 32` makes them; or set auth.jwt.",
      },
    ],
  });
}
