import {
  appendEntry,
  createPosting,
  documentOf,
  impactOf,
  MAX_DOCUMENTS,
  type Posting,
  retainEntries,
} from "./posting.ts";
import { createVocabulary, similarTerms } from "./similar-terms.ts";
import { tokenise } from "./tokenise.ts";

/** One field of a document. */
export interface Field {
  readonly text: string;
  /** How much a term in this field counts; in a plain description it counts 1. */
  readonly weight: number;
  /** The usual number of terms: in a longer field each counts less. */
  readonly usualLength: number;
}

export interface Hit {
  readonly document: number;
  readonly score: number;
}

/** How to choose among the documents that match. */
export interface Choice {
  readonly limit: number;
  accepts(document: number): boolean;
  /** Which of two documents with equal scores comes first. */
  isBefore(left: number, right: number): boolean;
}

/**
 * An inverted index with BM25F ranking (S. Robertson and H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and
 * Beyond", 2009). Field lengths are normalised by fixed lengths instead of averages, so that what a document
 * contributes to a score never changes and is computed once; only how rare a term is gets looked up by each search.
 */
export interface SearchIndex {
  /** Adds a document and returns its number. */
  add(fields: readonly Field[]): number;
  /** Removes a document; `fields` are those that it was added with. */
  remove(document: number, fields: readonly Field[]): void;
  /** How many numbers were given to documents, those of removed ones included. */
  readonly size: number;
  readonly removed: number;
  /**
   * The best of the documents that have any term of the query and are accepted. A term that no document has stands for
   * those that begin with it, or else are spelt nearly like it.
   */
  search(query: string, choice: Choice): Hit[];
  /**
   * Gives the remaining documents new numbers without gaps, in the same order, and returns the old number of each. Takes
   * some 10 ms for 100,000 documents.
   */
  compact(): Uint32Array;
}

/** How soon further occurrences of a term stop counting: the usual value of BM25. */
const SATURATION = 1.2;
/** How much a field's length counts, from 0 to 1. */
const LENGTH_INFLUENCE = 0.5;
/** A term in more than this share of the documents tells little; it counts only if all others are like it. */
const COMMON_SHARE = 0.3;
/** A query has at most so many different terms. */
const MAX_QUERY_TERMS = 24;
/** Terms that only resemble what was asked for count this much. */
const SIMILAR_WEIGHT = 0.5;

/** One word of a query: the term itself, or the terms that stand for it. */
interface QueryTerm {
  readonly postings: readonly Posting[];
  readonly weight: number;
  /** Whether documents that have it are preferred to those that do not. */
  readonly expected: boolean;
}

export function createSearchIndex(): SearchIndex {
  const vocabulary = createVocabulary<Posting>();
  let size = 0;
  let removed = 0;
  // Of each document, while searching: the score so far, how many expected terms it has, and the last of them.
  let scores = new Float32Array(1024);
  let matched = new Uint8Array(1024);
  let lastTerm = new Uint8Array(1024);
  let touched = new Uint32Array(1024);
  let alive = new Uint8Array(1024);

  function grow(): void {
    const capacity = scores.length * 2;
    scores = new Float32Array(capacity);
    matched = new Uint8Array(capacity);
    lastTerm = new Uint8Array(capacity);
    touched = new Uint32Array(capacity);
    const grown = new Uint8Array(capacity);
    grown.set(alive);
    alive = grown;
  }

  function queryTerms(query: string): QueryTerm[] {
    const documents = size - removed;
    const words = new Map<string, boolean>();
    tokenise(query, (term, whole) => {
      if (words.size < MAX_QUERY_TERMS && !words.has(term)) {
        words.set(term, whole);
      }
    });
    const terms: QueryTerm[] = [];
    for (const [word, whole] of words) {
      const exact = vocabulary.get(word);
      if (exact && exact.live > 0) {
        terms.push({ postings: [exact], weight: 1, expected: !whole });
      } else if (!whole) {
        const postings = similarTerms(word, vocabulary, words.size === 1);
        if (postings.length > 0) {
          terms.push({ postings, weight: SIMILAR_WEIGHT, expected: true });
        }
      }
    }
    const telling = terms.filter(({ postings }) =>
      postings.some(({ live }) => live > 0 && live <= documents * COMMON_SHARE),
    );
    return telling.length > 0 ? telling : terms;
  }

  /** Adds up the scores of all documents that have any of the terms and returns how many were touched. */
  function accumulate(terms: readonly QueryTerm[]): number {
    const documents = size - removed;
    let count = 0;
    for (const [index, { postings, weight, expected }] of terms.entries()) {
      for (const { entries, length, live } of postings) {
        const rarity = Math.log(1 + (documents - live + 0.5) / (live + 0.5));
        const scale = (rarity * weight) / 255;
        for (let position = 0; position < length; position++) {
          const entry = entries[position] ?? 0;
          const document = documentOf(entry);
          const score = scores[document] ?? 0;
          if (score === 0) {
            touched[count++] = document;
          }
          scores[document] = score + scale * impactOf(entry);
          if (expected && lastTerm[document] !== index + 1) {
            lastTerm[document] = index + 1;
            matched[document] = (matched[document] ?? 0) + 1;
          }
        }
      }
    }
    return count;
  }

  return {
    get size() {
      return size;
    },
    get removed() {
      return removed;
    },
    add(fields) {
      if (size === MAX_DOCUMENTS) {
        throw new RangeError(`a search index holds ${MAX_DOCUMENTS} documents`);
      }
      if (size === scores.length) {
        grow();
      }
      const document = size++;
      alive[document] = 1;
      for (const [term, frequency] of termFrequencies(fields)) {
        let posting = vocabulary.get(term);
        if (!posting) {
          posting = createPosting();
          vocabulary.set(term, posting);
        }
        appendEntry(posting, document, frequency / (SATURATION + frequency));
      }
      return document;
    },
    remove(document, fields) {
      if (!alive[document]) {
        return;
      }
      alive[document] = 0;
      removed++;
      for (const term of termFrequencies(fields).keys()) {
        const posting = vocabulary.get(term);
        if (posting && --posting.live === 0) {
          vocabulary.delete(term);
        }
      }
    },
    compact() {
      const remaining = new Uint32Array(size - removed);
      const renumbered = new Uint32Array(size);
      let next = 0;
      for (let document = 0; document < size; document++) {
        if (alive[document]) {
          remaining[next] = document;
          renumbered[document] = next++;
        }
      }
      for (const posting of vocabulary.values()) {
        retainEntries(posting, (document) => (alive[document] ? renumbered[document] : undefined));
      }
      alive.fill(0).fill(1, 0, next);
      size = next;
      removed = 0;
      return remaining;
    },
    search(query, choice) {
      const terms = queryTerms(query);
      const expected = terms.reduce((count, term) => count + Number(term.expected), 0);
      const count = accumulate(terms);
      const best = createBest(choice);
      for (let position = 0; position < count; position++) {
        const document = touched[position] ?? 0;
        // A document with all words is better than one in which a single word is very rare.
        const score = ((scores[document] ?? 0) * (1 + (matched[document] ?? 0))) / (1 + expected);
        scores[document] = 0;
        matched[document] = 0;
        lastTerm[document] = 0;
        if (alive[document] && score > 0) {
          best.offer(document, score);
        }
      }
      return best.hits();
    },
  };
}

/** How often each term occurs, weighted by field and its length. */
function termFrequencies(fields: readonly Field[]): Map<string, number> {
  const frequencies = new Map<string, number>();
  const terms: string[] = [];
  for (const { text, weight, usualLength } of fields) {
    terms.length = 0;
    tokenise(text, (term) => terms.push(term));
    const counts = weight / (1 - LENGTH_INFLUENCE + (LENGTH_INFLUENCE * terms.length) / usualLength);
    for (const term of terms) {
      frequencies.set(term, (frequencies.get(term) ?? 0) + counts);
    }
  }
  return frequencies;
}

/** Keeps the best of what it is offered, in order. Few are kept, so each is inserted in its place. */
function createBest({ limit, accepts, isBefore }: Choice) {
  const kept: Hit[] = [];

  function isBetter(document: number, score: number, than: Hit): boolean {
    return score > than.score || (score === than.score && isBefore(document, than.document));
  }

  return {
    offer(document: number, score: number): void {
      const worst = kept.at(-1);
      if (kept.length === limit && worst && !isBetter(document, score, worst)) {
        return;
      }
      if (!accepts(document)) {
        return;
      }
      let place = kept.length;
      for (let above = kept[place - 1]; above && isBetter(document, score, above); above = kept[place - 1]) {
        place--;
      }
      kept.splice(place, 0, { document, score });
      if (kept.length > limit) {
        kept.pop();
      }
    },
    hits: () => kept,
  };
}
