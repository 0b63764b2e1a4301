import { hash } from "node:crypto";
import type { Clock } from "../clock.ts";
import type { Verdict, Verifier } from "./verifier.ts";

export interface CachedVerifierOptions {
  readonly clock: Clock;
  /** How long a token that was accepted is not looked at again, at most, in milliseconds. Default: 60 s. */
  readonly acceptedMs?: number;
  /** How long a token that was refused is not looked at again, in milliseconds. Default: 5 s. */
  readonly refusedMs?: number;
  /** How many verdicts of each kind are remembered; the oldest go first. Default: 10,000, some 3 MB. */
  readonly capacity?: number;
}

interface Remembered {
  readonly verdict: Verdict;
  /** On the wall clock, in milliseconds. */
  readonly until: number;
}

/**
 * Remembers for a while what a verifier has found out: for verifiers that take their time, as checking signatures does.
 * Tokens are known by their SHA-256 and not kept. Refusals have a memory of their own, so that guesses do not crowd out
 * tokens that are good.
 */
export function cachedVerifier(verifier: Verifier, options: CachedVerifierOptions): Verifier {
  const { clock, acceptedMs = 60_000, refusedMs = 5_000, capacity = 10_000 } = options;
  const accepted = new Map<string, Remembered>();
  const refused = new Map<string, Remembered>();

  function recall(memory: Map<string, Remembered>, key: string): Verdict | undefined {
    const remembered = memory.get(key);
    if (remembered === undefined || clock.now() < remembered.until) {
      return remembered?.verdict;
    }
    memory.delete(key);
    return undefined;
  }

  function remember(memory: Map<string, Remembered>, key: string, remembered: Remembered): void {
    memory.delete(key);
    memory.set(key, remembered);
    if (memory.size > capacity) {
      // A Map iterates in the order of insertion.
      for (const oldest of memory.keys()) {
        memory.delete(oldest);
        break;
      }
    }
  }

  return {
    async verify(token) {
      const key = hash("sha256", token, "base64");
      const known = recall(accepted, key) ?? recall(refused, key);
      if (known !== undefined) {
        return known;
      }
      const verdict = await verifier.verify(token);
      switch (verdict.kind) {
        case "accepted": {
          const until = Math.min(clock.now() + acceptedMs, verdict.expiresAt ?? Number.POSITIVE_INFINITY);
          remember(accepted, key, { verdict, until });
          break;
        }
        case "refused":
          remember(refused, key, { verdict, until: clock.now() + refusedMs });
          break;
        case "foreign":
          break;
      }
      return verdict;
    },
  };
}
