/** How a piece of work ended for good. What is in `bytes` is the business of whoever does the work. */
export interface IdempotentOutcome {
  readonly kind: "success" | "failure";
  readonly bytes: Uint8Array;
}

export interface ClaimRequest {
  /** Scope and request id in one. */
  readonly key: string;
  /** Tells requests apart: a key belongs to the first one that claims it. */
  readonly fingerprint: string;
  /** How long the claim holds unless it is renewed, in milliseconds. */
  readonly leaseMs: number;
  /** How long the claim is remembered when neither an outcome nor a release follows, in milliseconds. */
  readonly retentionMs: number;
}

/** The right to do the work for a key. */
export interface Claim {
  readonly key: string;
  /** Higher than that of every claim before it. What an older claim writes comes to nothing. */
  readonly token: string;
}

export type ClaimResult =
  | { readonly kind: "claimed"; readonly claim: Claim }
  /** The work is done. The outcome is undefined when it was too large to be kept. */
  | { readonly kind: "completed"; readonly outcome: IdempotentOutcome | undefined }
  /** Somebody else works, and will have lost the claim after so long at the latest, unless it is renewed. */
  | { readonly kind: "busy"; readonly leaseLeftMs: number }
  /** The key belongs to a request with another fingerprint. */
  | { readonly kind: "reused" };

/**
 * Remembers which requests were made and how they ended, for all replicas alike. Every operation happens as a whole or
 * not at all; one that throws may have happened.
 */
export interface IdempotencyStore {
  /** The largest outcome that is kept, in bytes. */
  readonly maxOutcomeBytes: number;
  claim(request: ClaimRequest): Promise<ClaimResult>;
  /** Lets a claim hold for its full time again; false when it is not held any more. */
  renew(claim: Claim, leaseMs: number): Promise<boolean>;
  /** Remembers for so long how the work ended; false when the claim is not held any more. */
  complete(claim: Claim, outcome: IdempotentOutcome | undefined, retentionMs: number): Promise<boolean>;
  /** Forgets the claim, if it is held: the work may be done by whoever asks next. */
  release(claim: Claim): Promise<void>;
  /**
   * Calls back when work for the key may have ended, for a `claim` that is made after this and finds the key busy. It
   * is a hint that may be late or missing. Returns what ends the watch.
   */
  watch(key: string, onChange: () => void): () => void;
}
