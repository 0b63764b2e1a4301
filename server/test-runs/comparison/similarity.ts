/** Longer names are compared by their beginning and end: cost stays bounded. */
const MAX_CHARS = 256;

/** A name, ready to be compared with many. */
export interface Shingles {
  readonly counts: ReadonlyMap<number, number>;
  readonly size: number;
}

/** The pairs of neighbouring characters of a text, in lower case, with a mark at each end. */
export function shinglesOf(text: string): Shingles {
  const whole = text.toLowerCase();
  const bounded =
    whole.length <= MAX_CHARS ? whole : whole.slice(0, MAX_CHARS / 2) + whole.slice(-MAX_CHARS / 2);
  const marked = `\u0002${bounded}\u0003`;
  const counts = new Map<number, number>();
  for (let i = 0; i + 1 < marked.length; i++) {
    const pair = marked.charCodeAt(i) * 65_536 + marked.charCodeAt(i + 1);
    counts.set(pair, (counts.get(pair) ?? 0) + 1);
  }
  return { counts, size: marked.length - 1 };
}

/** The share of pairs that two names have in common, from 0 to 1. Sørensen 1948, Dice 1945, over character pairs. */
export function similarityOf(a: Shingles, b: Shingles): number {
  const [few, many] = a.counts.size <= b.counts.size ? [a, b] : [b, a];
  let common = 0;
  for (const [pair, count] of few.counts) {
    common += Math.min(count, many.counts.get(pair) ?? 0);
  }
  return (2 * common) / (a.size + b.size);
}
