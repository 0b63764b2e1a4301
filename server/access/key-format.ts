import { hash, randomBytes, randomInt } from "node:crypto";
import { crc32 } from "node:zlib";

/**
 * A key as its holder has it: `tp_`, its id, `_`, 43 characters that are secret, and 6 that check the rest, such as
 *
 *     tp_k3f9a0c2b7q_0Jg4…(43)…x3Zk1a
 *
 * The form is one that scanners for leaked secrets can look for: `tp_k[0-9a-z]{10}_[0-9A-Za-z]{49}`. The checksum tells a
 * typo, or a key that was cut, from one that is not known, without a look into any list.
 */
export interface ParsedKey {
  readonly id: string;
  readonly secret: string;
}

const PREFIX = "tp_";
const FORM = /^tp_(k[0-9a-z]{10})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})$/;
const ID_FORM = /^k[0-9a-z]{10}$/;
const ID_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz";
const BASE62 = `${ID_DIGITS}ABCDEFGHIJKLMNOPQRSTUVWXYZ`;
/** 62^43 is just above 2^256. */
const SECRET_LENGTH = 43;
const SECRET_BYTES = 32;
const CHECKSUM_LENGTH = 6;

/** A new key: an id of some 51 random bits, and a secret of 256. */
export function createKey(): ParsedKey & { readonly token: string } {
  const id = `k${Array.from({ length: 10 }, () => ID_DIGITS[randomInt(ID_DIGITS.length)]).join("")}`;
  const secret = base62(BigInt(`0x${randomBytes(SECRET_BYTES).toString("hex")}`), SECRET_LENGTH);
  const body = `${PREFIX}${id}_${secret}`;
  return { id, secret, token: body + checksum(body) };
}

/** The parts of a token; `foreign` when it is no key at all, `malformed` when it was one before someone changed it. */
export function parseKey(token: string): ParsedKey | "foreign" | "malformed" {
  if (!token.startsWith(PREFIX)) {
    return "foreign";
  }
  const [, id, secret, check] = FORM.exec(token) ?? [];
  return id !== undefined && secret !== undefined && check === checksum(token.slice(0, -CHECKSUM_LENGTH))
    ? { id, secret }
    : "malformed";
}

/** Whether a key can have this id. */
export function isKeyId(id: string): boolean {
  return ID_FORM.test(id);
}

/**
 * What is kept of a secret. A single SHA-256 is enough: slow hashes make up for passwords that can be guessed, and 256
 * random bits cannot. It also takes a microsecond, so that a check can be made with every call.
 */
export function hashSecret(secret: string): Buffer {
  return hash("sha256", secret, "buffer");
}

function checksum(body: string): string {
  return base62(BigInt(crc32(body)), CHECKSUM_LENGTH);
}

/** A number in digits and letters, with zeros in front. */
function base62(value: bigint, length: number): string {
  let digits = "";
  for (let rest = value; digits.length < length; rest /= 62n) {
    digits = `${BASE62[Number(rest % 62n)]}${digits}`;
  }
  return digits;
}
