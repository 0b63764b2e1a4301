import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from "node:crypto";

/** What is kept of an answer. */
export interface CacheEntry {
  readonly value: Uint8Array;
  /** By what it may be purged. */
  readonly tags: readonly string[];
  /** When it was loaded, in milliseconds since 1970. */
  readonly loadedAt: number;
  /** How long it is fresh, in milliseconds. */
  readonly ttlMs: number;
  /** How long it took to load, in milliseconds. */
  readonly loadMs: number;
  /** What a hit saves. */
  readonly tokens: number;
  readonly costUsd: number;
}

export type OpenedEntry =
  | { readonly kind: "intact"; readonly entry: CacheEntry }
  /** It is not what was sealed under this name and key: changed, cut off, or moved here from another key. */
  | { readonly kind: "tampered" }
  /** It was sealed with a key that is not known here, as during a rotation. */
  | { readonly kind: "unknown-key" };

/** Turns entries into bytes that cannot be changed unnoticed, and back. */
export interface Sealer {
  seal(cache: string, key: string, entry: CacheEntry): Uint8Array;
  open(cache: string, key: string, sealed: Uint8Array): OpenedEntry;
}

/** Sets these codes apart from all others that are made with the same secret, and names the format. */
const PURPOSE = "toolplane response cache 1";
const MIN_SECRET_BYTES = 32;
const KEY_ID_BYTES = 8;
const MAC_BYTES = 32;
const NUMBERS = 5;
/** Key id, code, numbers and the length of the tags. */
const HEADER_BYTES = KEY_ID_BYTES + MAC_BYTES + NUMBERS * 8 + 4;

/**
 * Creates a sealer: HMAC-SHA256 (RFC 2104) over the name of the cache, the key, the times, the metadata and the value.
 * It keeps nothing secret; values are readable to whoever reads the store. Nor does it tell whether an entry that was
 * deleted has been put back before its time was over.
 *
 * Layout: 8 bytes that name the secret, 32 bytes of code, five float64 (big endian), the tags as JSON after their
 * length, the value.
 *
 * @param secrets of 32 bytes at least. The first seals; all open. To replace one, put the new one first and take the old
 *   one out when what it has sealed is expired.
 */
export function createSealer(secrets: readonly Uint8Array[]): Sealer {
  const keys = secrets.map((secret) => {
    if (secret.byteLength < MIN_SECRET_BYTES) {
      throw new RangeError(`a secret for sealing needs at least ${MIN_SECRET_BYTES} bytes`);
    }
    const key = createSecretKey(secret);
    return { key, id: createHmac("sha256", key).update(`${PURPOSE} id`).digest().subarray(0, KEY_ID_BYTES) };
  });
  const [signing] = keys;
  if (signing === undefined) {
    throw new RangeError("sealing needs a secret");
  }

  return {
    seal(cache, key, { value, tags, loadedAt, ttlMs, loadMs, tokens, costUsd }) {
      const tagBytes = Buffer.from(JSON.stringify(tags));
      const sealed = Buffer.alloc(HEADER_BYTES + tagBytes.byteLength + value.byteLength);
      signing.id.copy(sealed);
      let offset = KEY_ID_BYTES + MAC_BYTES;
      for (const number of [loadedAt, ttlMs, loadMs, tokens, costUsd]) {
        offset = sealed.writeDoubleBE(number, offset);
      }
      offset = sealed.writeUInt32BE(tagBytes.byteLength, offset);
      tagBytes.copy(sealed, offset);
      sealed.set(value, offset + tagBytes.byteLength);
      codeOf(signing.key, cache, key, sealed).copy(sealed, KEY_ID_BYTES);
      return sealed;
    },

    open(cache, key, bytes) {
      const sealed = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      if (sealed.byteLength < HEADER_BYTES) {
        return { kind: "tampered" };
      }
      const id = sealed.subarray(0, KEY_ID_BYTES);
      const known = keys.find((each) => each.id.equals(id));
      if (known === undefined) {
        return { kind: "unknown-key" };
      }
      const code = sealed.subarray(KEY_ID_BYTES, KEY_ID_BYTES + MAC_BYTES);
      if (!timingSafeEqual(codeOf(known.key, cache, key, sealed), code)) {
        return { kind: "tampered" };
      }
      const number = (index: number) => sealed.readDoubleBE(KEY_ID_BYTES + MAC_BYTES + index * 8);
      const valueStart = HEADER_BYTES + sealed.readUInt32BE(HEADER_BYTES - 4);
      // What has the right code is what was sealed, so it has the form that it was given.
      const tags: string[] = JSON.parse(sealed.toString("utf8", HEADER_BYTES, valueStart));
      return {
        kind: "intact",
        entry: {
          value: new Uint8Array(sealed.subarray(valueStart)),
          tags,
          loadedAt: number(0),
          ttlMs: number(1),
          loadMs: number(2),
          tokens: number(3),
          costUsd: number(4),
        },
      };
    },
  };
}

/** The code of everything but itself. Lengths go first, so that no two pairs of a name and a key read the same. */
function codeOf(secret: KeyObject, cache: string, key: string, sealed: Buffer): Buffer {
  const hmac = createHmac("sha256", secret);
  for (const text of [PURPOSE, cache, key]) {
    const bytes = Buffer.from(text, "utf16le"); // unlike UTF-8 different for all texts, also broken ones
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.byteLength);
    hmac.update(length).update(bytes);
  }
  return hmac
    .update(sealed.subarray(0, KEY_ID_BYTES))
    .update(sealed.subarray(KEY_ID_BYTES + MAC_BYTES))
    .digest();
}
