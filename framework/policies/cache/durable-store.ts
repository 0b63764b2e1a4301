/** Which answers to forget. */
export type PurgeScope =
  | { readonly kind: "all" }
  | { readonly kind: "tag"; readonly tag: string }
  | { readonly kind: "key"; readonly key: string };

/** An entry on its way to the store. */
export interface DurableWrite {
  readonly cache: string;
  readonly key: string;
  readonly sealed: Uint8Array;
  readonly tags: readonly string[];
  /** After this time, in milliseconds since 1970, nobody has a use for it. */
  readonly keepUntil: number;
  /** The store's `position()` before the answer was loaded. */
  readonly position: number;
}

/**
 * Where entries outlive the process, shared by replicas. It is not trusted with their content, which is sealed.
 *
 * A purge must reach what is still on its way: entries whose `position` is before the purge are never read again, even
 * when they are written after it.
 */
export interface DurableStore {
  /** How far this replica has seen the purges; grows with each. */
  position(): number;
  read(cache: string, key: string, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** Replaces what has the same cache and key. All or nothing. */
  write(entries: readonly DurableWrite[]): Promise<void>;
  /** Removes an entry, if it is still the one that was read. */
  drop(cache: string, key: string, sealed: Uint8Array): Promise<void>;
  /** Resolves with the number of entries that were purged, when no replica reads them any more. */
  purge(cache: string, scope: PurgeScope): Promise<number>;
  /**
   * Calls back for each purge, of this and other replicas, within moments; and for the scope `all` when some may have
   * been missed. Returns what ends that.
   */
  follow(cache: string, onPurge: (scope: PurgeScope) => void): () => void;
  /** Whether a write that failed may succeed later. */
  isTransient(error: unknown): boolean;
}
