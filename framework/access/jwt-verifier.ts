import { errors, type JWTPayload, type JWTVerifyGetKey, type JWTVerifyOptions, jwtVerify } from "jose";
import type { Clock } from "../clock.ts";
import type { Role } from "../interceptors/call-context.ts";
import { includesRole } from "./role-of.ts";
import type { Verdict, Verifier } from "./verifier.ts";

export interface JwtVerifierOptions {
  /** Finds the key that a token was signed with, see `createKeySource`. */
  readonly keys: JWTVerifyGetKey;
  /** The `iss` that a token must have. */
  readonly issuer: string;
  /** The `aud` that a token must have. */
  readonly audience: string;
  /** The claim that names the caller. Default: `sub`. */
  readonly subjectClaim?: string;
  /**
   * The claim that holds the caller's roles: a list, or a text with spaces between them. Dots step into objects, unless
   * there is a claim of the whole name. Default: `roles`.
   */
  readonly rolesClaim?: string;
  /** Which role a value of the claim stands for. Default: `reader`, `caller` and `operator` for themselves. */
  readonly roles?: ReadonlyMap<string, Role>;
  readonly clock: Clock;
}

/** How far the clocks of issuers may be off, in seconds. */
const CLOCK_TOLERANCE_S = 30;
/** Names go into logs and into the keys of limits. */
const MAX_SUBJECT_LENGTH = 255;

/** Signatures that only the issuer can make. With a shared secret, whoever can check a token could make one. */
const ALGORITHMS = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
];

const defaultRoles: ReadonlyMap<string, Role> = new Map([
  ["reader", "reader"],
  ["caller", "caller"],
  ["operator", "operator"],
]);

/**
 * Takes JSON Web Tokens (RFC 7519) of one issuer that were made for one audience and that expire. The principal is
 * `user:` and the subject; its role the highest that the token names. A token that names none is known but may do nothing.
 */
export function jwtVerifier(options: JwtVerifierOptions): Verifier {
  const { keys, clock, subjectClaim = "sub", rolesClaim = "roles", roles = defaultRoles } = options;

  async function payloadOf(token: string): Promise<JWTPayload> {
    const checks: JWTVerifyOptions = {
      algorithms: ALGORITHMS,
      issuer: options.issuer,
      audience: options.audience,
      requiredClaims: ["exp"],
      clockTolerance: CLOCK_TOLERANCE_S,
      currentDate: new Date(clock.now()),
    };
    let found = false;
    const findKey: JWTVerifyGetKey = async (header, jws) => {
      const key = await keys(header, jws);
      found = true;
      return key;
    };
    try {
      return (await jwtVerify(token, findKey, checks)).payload;
    } catch (error) {
      if (!(error instanceof errors.JWKSMultipleMatchingKeys)) {
        throw isUnusableKey(error, found) ? new UnusableKeyError(error) : error;
      }
      // The token does not say which of the issuer's keys it was signed with.
      for await (const key of error) {
        try {
          return (await jwtVerify(token, key, checks)).payload;
        } catch (failure) {
          if (!(failure instanceof errors.JWSSignatureVerificationFailed || isUnusableKey(failure, true))) {
            throw failure;
          }
        }
      }
      throw new errors.JWSSignatureVerificationFailed();
    }
  }

  return {
    async verify(token) {
      if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) {
        return { kind: "foreign" };
      }
      let payload: JWTPayload;
      try {
        payload = await payloadOf(token);
      } catch (error) {
        return refusalOf(error);
      }
      const subject = claimAt(payload, subjectClaim);
      if (typeof subject !== "string" || !isName(subject)) {
        return refused(`the token's claim ${subjectClaim} does not name anyone`);
      }
      const role = highestRole(claimAt(payload, rolesClaim), roles);
      return {
        kind: "accepted",
        identity: {
          id: `user:${subject}`,
          role,
          ...(role === undefined && {
            missingRole: `the token's claim ${rolesClaim} names none that is known here`,
          }),
        },
        expiresAt: ((payload.exp ?? 0) + CLOCK_TOLERANCE_S) * 1_000,
      };
    },
  };
}

/** A token names a key that its issuer publishes and that does not fit, such as one that is too short. */
class UnusableKeyError extends Error {
  override readonly name = "UnusableKeyError";
  constructor(cause: unknown) {
    super("the key cannot be used", { cause });
  }
}

/**
 * Whether a published key is to blame: anyone can name one in a token, which is no failure of this process.
 *
 * @param found whether there was a key already; before, a TypeError is that of `fetch`
 */
function isUnusableKey(error: unknown, found: boolean): boolean {
  return found
    ? error instanceof TypeError
    : error instanceof errors.JWKSInvalid ||
        (error instanceof DOMException && ["DataError", "NotSupportedError"].includes(error.name));
}

/** What is wrong with a token, or the error when that is not known. */
function refusalOf(error: unknown): Verdict {
  if (error instanceof errors.JWTExpired) {
    return { kind: "refused", reason: "CREDENTIALS_EXPIRED", message: "the token has expired" };
  }
  if (error instanceof errors.JWTClaimValidationFailed) {
    return refused(
      error.claim === "nbf" && error.reason === "check_failed"
        ? "the token is not valid yet"
        : `the token's claim ${error.claim} is ${error.reason === "missing" ? "missing" : "not what is expected here"}`,
    );
  }
  if (error instanceof errors.JWKSNoMatchingKey) {
    return refused("the token was signed with a key that its issuer does not publish");
  }
  if (error instanceof UnusableKeyError) {
    return refused("the token was signed with a key that cannot be used here");
  }
  if (error instanceof errors.JOSEAlgNotAllowed) {
    return refused("the token was signed in a way that is not taken here");
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) {
    return refused("the token's signature is not right");
  }
  if (
    error instanceof errors.JWSInvalid ||
    error instanceof errors.JWTInvalid ||
    error instanceof errors.JOSENotSupported
  ) {
    return { kind: "refused", reason: "CREDENTIALS_MALFORMED", message: "the token cannot be read" };
  }
  throw error;
}

function refused(message: string): Verdict {
  return { kind: "refused", reason: "CREDENTIALS_INVALID", message };
}

/** The claim of this name, else the one that its dots lead to: names of claims may be URLs, which have dots too. */
function claimAt(payload: JWTPayload, path: string): unknown {
  if (Object.hasOwn(payload, path)) {
    return payload[path];
  }
  let value: unknown = payload;
  for (const step of path.split(".")) {
    value = isObject(value) && Object.hasOwn(value, step) ? value[step] : undefined;
  }
  return value;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

/**
 * Names are shown in logs and lists, and some issuers let people choose their own: what would make one look like another,
 * or like several lines, is in none. Half a surrogate pair would become the same as every other one.
 */
function isName(subject: string): boolean {
  return (
    subject.length <= MAX_SUBJECT_LENGTH &&
    subject.trim() === subject &&
    /^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]+$/u.test(subject)
  );
}

function highestRole(claim: unknown, roles: ReadonlyMap<string, Role>): Role | undefined {
  const values =
    typeof claim === "string" ? [claim, ...claim.split(/\s+/)] : Array.isArray(claim) ? claim : [];
  let highest: Role | undefined;
  for (const value of values) {
    const role = roles.get(value);
    if (role !== undefined && (highest === undefined || includesRole(role, highest))) {
      highest = role;
    }
  }
  return highest;
}
