import type { Role } from "../interceptors/call-context.ts";

/** Whom credentials stand for. */
export interface Identity {
  /** See `Principal.id`. */
  readonly id: string;
  /** Undefined: someone who is known, but may do nothing. */
  readonly role: Role | undefined;
  /** For people: where a role would come from, when there is none. */
  readonly missingRole?: string;
}

/** Why credentials are not taken, in UPPER_SNAKE_CASE; sent as `google.rpc.ErrorInfo.reason`. */
export type RefusalReason =
  | "CREDENTIALS_MISSING"
  | "CREDENTIALS_MALFORMED"
  | "CREDENTIALS_INVALID"
  | "CREDENTIALS_EXPIRED"
  | "CREDENTIALS_REVOKED";

/** What a verifier has found out about a token. */
export type Verdict =
  | {
      readonly kind: "accepted";
      readonly identity: Identity;
      /** From when on it is to be looked at again, in milliseconds since 1970. Unset: never. */
      readonly expiresAt?: number;
    }
  /** It is no token of the verifier's kind: another one may know it. */
  | { readonly kind: "foreign" }
  | {
      readonly kind: "refused";
      readonly reason: RefusalReason;
      /** For the caller: what is wrong. Never the token or a part of it that is secret. */
      readonly message: string;
    };

/** Knows one kind of bearer tokens. */
export interface Verifier {
  /** Throws when the answer cannot be known now, which must not be mistaken for a refusal. */
  verify(token: string): Verdict | Promise<Verdict>;
}
