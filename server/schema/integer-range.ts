/**
 * A regular expression source, without anchors, that matches exactly the decimal integers from `low` to `high` in
 * canonical form: no leading zeros, no plus sign, no "-0". It uses only syntax that JavaScript and RE2 share.
 */
export function integerRangePattern(low: bigint, high: bigint): string {
  if (low > high) {
    throw new RangeError(`empty range ${low}..${high}`);
  }
  // What both signs share is written once.
  const shared = low < 0n && high > 0n ? (-low < high ? -low : high) : 0n;
  const alternatives = unsigned(1n, shared).map((pattern) => `-?${pattern}`);
  if (low < -shared) {
    const nearest = high < 0n ? -high : shared + 1n;
    alternatives.push(...unsigned(nearest, -low).map((pattern) => `-${pattern}`));
  }
  if (low <= 0n && high >= 0n) {
    alternatives.push("0");
  }
  alternatives.push(...unsigned(low > 0n ? low : shared + 1n, high));
  return alternatives.length === 1 ? (alternatives[0] ?? "") : `(?:${alternatives.join("|")})`;
}

/** The pattern that a whole text matches. */
export function anchored(pattern: string): string {
  return `^(?:${pattern})$`;
}

/** Splits a range of positive integers by their number of digits. */
function unsigned(low: bigint, high: bigint): string[] {
  const patterns: string[] = [];
  let from = low;
  while (from <= high) {
    const digits = from.toString().length;
    const last = 10n ** BigInt(digits) - 1n;
    const to = last < high ? last : high;
    // Whole decades that follow each other are one pattern: 1..99 is [1-9][0-9]{0,1}.
    if (from === 10n ** BigInt(digits - 1) && to === last) {
      let most = digits;
      while (10n ** BigInt(most + 1) - 1n <= high) {
        most++;
      }
      patterns.push(`[1-9]${repeat("[0-9]", digits - 1, most - 1)}`);
      from = 10n ** BigInt(most);
      continue;
    }
    patterns.push(...sameLength(from.toString(), to.toString()));
    from = to + 1n;
  }
  return patterns;
}

/** Patterns for the digit strings from `low` to `high`, both of one length. */
function sameLength(low: string, high: string): string[] {
  const rest = low.length - 1;
  const lowest = Number(low[0]);
  const highest = Number(high[0]);
  if (rest === 0) {
    return [digitClass(lowest, highest)];
  }
  if (lowest === highest) {
    return sameLength(low.slice(1), high.slice(1)).map((pattern) => `${lowest}${pattern}`);
  }
  const patterns: string[] = [];
  const wholeLow = /^0*$/.test(low.slice(1));
  const wholeHigh = /^9*$/.test(high.slice(1));
  if (!wholeLow) {
    patterns.push(...sameLength(low.slice(1), "9".repeat(rest)).map((pattern) => `${lowest}${pattern}`));
  }
  const first = wholeLow ? lowest : lowest + 1;
  const last = wholeHigh ? highest : highest - 1;
  if (first <= last) {
    patterns.push(`${digitClass(first, last)}${repeat("[0-9]", rest, rest)}`);
  }
  if (!wholeHigh) {
    patterns.push(...sameLength("0".repeat(rest), high.slice(1)).map((pattern) => `${highest}${pattern}`));
  }
  return patterns;
}

function digitClass(from: number, to: number): string {
  return from === to ? `${from}` : `[${from}-${to}]`;
}

function repeat(pattern: string, least: number, most: number): string {
  if (most === 0) {
    return "";
  }
  if (least === most) {
    return least === 1 ? pattern : `${pattern}{${least}}`;
  }
  return `${pattern}{${least},${most}}`;
}
