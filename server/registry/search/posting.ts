/** The documents that have a term, each with how much the term counts there, in 4 bytes. */
export interface Posting {
  /** How many documents that were not removed have the term. */
  live: number;
  /** How many entries are used. */
  length: number;
  entries: Uint32Array;
}

const DOCUMENT_BITS = 24;
const DOCUMENT_MASK = 2 ** DOCUMENT_BITS - 1;

/** The highest number of documents that entries can hold. */
export const MAX_DOCUMENTS = 2 ** DOCUMENT_BITS;

export function createPosting(): Posting {
  return { live: 0, length: 0, entries: new Uint32Array(2) };
}

/** `impact` is above 0 and at most 1, and kept in 255 steps. */
export function appendEntry(posting: Posting, document: number, impact: number): void {
  if (posting.length === posting.entries.length) {
    const grown = new Uint32Array(Math.ceil(posting.length * 1.5) + 1);
    grown.set(posting.entries);
    posting.entries = grown;
  }
  const steps = Math.max(1, Math.min(255, Math.round(impact * 255)));
  posting.entries[posting.length++] = toEntry(document, steps);
  posting.live++;
}

/** Renumbers the entries' documents and drops the entries of documents that have no new number. */
export function retainEntries(posting: Posting, renumber: (document: number) => number | undefined): void {
  const entries = new Uint32Array(posting.live);
  let length = 0;
  for (let position = 0; position < posting.length; position++) {
    const entry = posting.entries[position] ?? 0;
    const document = renumber(documentOf(entry));
    if (document !== undefined) {
      entries[length++] = toEntry(document, impactOf(entry));
    }
  }
  posting.entries = entries;
  posting.length = length;
}

function toEntry(document: number, impact: number): number {
  // `>>>` keeps the highest bit from being taken for a sign.
  return ((impact << DOCUMENT_BITS) | document) >>> 0;
}

export function documentOf(entry: number): number {
  return entry & DOCUMENT_MASK;
}

export function impactOf(entry: number): number {
  return entry >>> DOCUMENT_BITS;
}
