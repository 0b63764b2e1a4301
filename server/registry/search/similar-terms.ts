/** At most so many terms stand in for one that no document has. */
const MAX_SIMILAR = 12;
/** Shorter terms resemble too many others. */
const MIN_FUZZY_LENGTH = 4;
/** From this length on, two mistakes are allowed instead of one. */
const TWO_MISTAKES_LENGTH = 8;

/** Fewer letters begin too many words, unless they are all that is asked for. */
const MIN_PREFIX_LENGTH = 3;

/** Terms and what is known about each, arranged so that those with the same first letter are found together. */
export interface Vocabulary<T> {
  get(term: string): T | undefined;
  set(term: string, value: T): void;
  delete(term: string): void;
  values(): Iterable<T>;
  /** The terms with this first letter. */
  beginning(initial: string): Iterable<readonly [term: string, value: T]>;
}

export function createVocabulary<T>(): Vocabulary<T> {
  const all = new Map<string, T>();
  const byInitial = new Map<string, Map<string, T>>();
  return {
    get: (term) => all.get(term),
    set(term, value) {
      all.set(term, value);
      const initial = term.charAt(0);
      const terms = byInitial.get(initial) ?? new Map<string, T>();
      byInitial.set(initial, terms.set(term, value));
    },
    delete(term) {
      all.delete(term);
      byInitial.get(term.charAt(0))?.delete(term);
    },
    values: () => all.values(),
    beginning: (initial) => byInitial.get(initial) ?? [],
  };
}

/**
 * What stands for a term that no document has: the terms that begin with it, or else those spelt nearly like it, those
 * in most documents first. Few mistake the first letter, so only terms with the same one are looked at. `isAll` says
 * that nothing else was asked for.
 */
export function similarTerms<T extends { readonly live: number }>(
  term: string,
  vocabulary: Vocabulary<T>,
  isAll: boolean,
): T[] {
  if (term.length < MIN_PREFIX_LENGTH && !isAll) {
    return [];
  }
  const prefixed = select(term, vocabulary, (candidate) => candidate.startsWith(term));
  if (prefixed.length > 0 || term.length < MIN_FUZZY_LENGTH) {
    return prefixed;
  }
  const mistakes = term.length < TWO_MISTAKES_LENGTH ? 1 : 2;
  return select(
    term,
    vocabulary,
    (candidate) =>
      Math.abs(candidate.length - term.length) <= mistakes && distanceWithin(candidate, term, mistakes),
  );
}

function select<T extends { readonly live: number }>(
  term: string,
  vocabulary: Vocabulary<T>,
  matches: (candidate: string) => boolean,
): T[] {
  const found: (readonly [string, T])[] = [];
  for (const entry of vocabulary.beginning(term.charAt(0))) {
    if (entry[1].live > 0 && matches(entry[0])) {
      found.push(entry);
    }
  }
  return found
    .sort(([left, { live: l }], [right, { live: r }]) => r - l || (left < right ? -1 : 1))
    .slice(0, MAX_SIMILAR)
    .map(([, value]) => value);
}

/**
 * Whether at most `limit` letters have to be inserted, left out, replaced or swapped with their neighbour to turn one
 * word into the other: the restricted Damerau-Levenshtein distance.
 */
export function distanceWithin(left: string, right: string, limit: number): boolean {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let row = 1; row <= left.length; row++) {
    const current = [row];
    let best = row;
    for (let column = 1; column <= right.length; column++) {
      const same = left[row - 1] === right[column - 1];
      let cost = Math.min(
        at(previous, column) + 1,
        at(current, column - 1) + 1,
        at(previous, column - 1) + (same ? 0 : 1),
      );
      if (
        row > 1 &&
        column > 1 &&
        left[row - 1] === right[column - 2] &&
        left[row - 2] === right[column - 1]
      ) {
        cost = Math.min(cost, at(beforePrevious, column - 2) + 1);
      }
      current.push(cost);
      best = Math.min(best, cost);
    }
    if (best > limit) {
      return false;
    }
    beforePrevious = previous;
    previous = current;
  }
  return at(previous, right.length) <= limit;
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY;
}
