import { type Clock, systemClock } from "../../clock.ts";
import type { Claim, ClaimRequest, ClaimResult, IdempotencyStore, IdempotentOutcome } from "./store.ts";

export interface MemoryIdempotencyStoreOptions {
  /** How many requests are remembered. Default 10,000. */
  readonly maxEntries?: number;
  /** How many bytes of outcomes are remembered. Default 64 MiB. */
  readonly maxBytes?: number;
  /** The largest outcome that is kept. Default 4 MiB. */
  readonly maxOutcomeBytes?: number;
  readonly clock?: Clock;
}

interface Entry {
  readonly fingerprint: string;
  token: number;
  /** Undefined while the work is being done. */
  completed: { readonly outcome: IdempotentOutcome | undefined } | undefined;
  leaseUntil: number;
  expiresAt: number;
}

/**
 * Remembers requests in the memory of one process: for tests, and for servers that run alone and may forget everything
 * when they stop.
 *
 * When it is full of what it has promised to remember, it refuses further claims by throwing: forgetting early would let
 * a request be repeated for real.
 */
export function createMemoryIdempotencyStore(options: MemoryIdempotencyStoreOptions = {}): IdempotencyStore {
  const { maxEntries = 10_000, maxBytes = 64 * 2 ** 20, maxOutcomeBytes = 4 * 2 ** 20 } = options;
  const clock = options.clock ?? systemClock;
  // In the order in which they expire, as long as all are kept for the same time.
  const entries = new Map<string, Entry>();
  const watchers = new Map<string, Set<() => void>>();
  let bytes = 0;
  let lastToken = 0;

  function forget(key: string, entry: Entry): void {
    entries.delete(key);
    bytes -= entry.completed?.outcome?.bytes.byteLength ?? 0;
  }

  function forgetExpired(now: number): void {
    for (const [key, entry] of entries) {
      if (entry.expiresAt > now) {
        break;
      }
      forget(key, entry);
    }
  }

  function held({ key, token }: Claim): Entry | undefined {
    const entry = entries.get(key);
    return entry !== undefined && entry.completed === undefined && String(entry.token) === token
      ? entry
      : undefined;
  }

  function notify(key: string): void {
    for (const onChange of [...(watchers.get(key) ?? [])]) {
      onChange();
    }
  }

  function take(request: ClaimRequest, now: number): ClaimResult {
    const token = ++lastToken;
    entries.set(request.key, {
      fingerprint: request.fingerprint,
      token,
      completed: undefined,
      leaseUntil: now + request.leaseMs,
      expiresAt: now + request.retentionMs,
    });
    return { kind: "claimed", claim: { key: request.key, token: String(token) } };
  }

  return {
    maxOutcomeBytes,
    async claim(request) {
      const now = clock.monotonic();
      forgetExpired(now);
      const entry = entries.get(request.key);
      if (entry === undefined || entry.expiresAt <= now) {
        if (entry !== undefined) {
          forget(request.key, entry);
        }
        if (entries.size >= maxEntries || bytes >= maxBytes) {
          throw new Error("the memory for requests is full");
        }
        return take(request, now);
      }
      if (entry.fingerprint !== request.fingerprint) {
        return { kind: "reused" };
      }
      if (entry.completed !== undefined) {
        return { kind: "completed", outcome: entry.completed.outcome };
      }
      if (entry.leaseUntil > now) {
        return { kind: "busy", leaseLeftMs: entry.leaseUntil - now };
      }
      entries.delete(request.key);
      return take(request, now);
    },
    async renew(claim, leaseMs) {
      const entry = held(claim);
      if (entry !== undefined) {
        entry.leaseUntil = clock.monotonic() + leaseMs;
      }
      return entry !== undefined;
    },
    async complete(claim, outcome, retentionMs) {
      const entry = held(claim);
      if (entry === undefined) {
        return false;
      }
      entry.completed = { outcome };
      entry.expiresAt = clock.monotonic() + retentionMs;
      bytes += outcome?.bytes.byteLength ?? 0;
      // To the end, where it belongs now.
      entries.delete(claim.key);
      entries.set(claim.key, entry);
      notify(claim.key);
      return true;
    },
    async release(claim) {
      const entry = held(claim);
      if (entry !== undefined) {
        forget(claim.key, entry);
        notify(claim.key);
      }
    },
    watch(key, onChange) {
      const members = watchers.get(key) ?? new Set();
      watchers.set(key, members.add(onChange));
      return () => {
        if (members.delete(onChange) && members.size === 0) {
          watchers.delete(key);
        }
      };
    },
  };
}
