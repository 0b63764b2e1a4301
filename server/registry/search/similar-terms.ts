/** At most so many terms stand in for one that no document has. */
const MAX_SIMILAR = 12;
/** Shorter terms resemble too many others. */
const MIN_FUZZY_LENGTH = 4;
/** From this length on, two mistakes are allowed instead of one. */
const TWO_MISTAKES_LENGTH = 8;

/** The terms that begin with `term`, or else those spelt nearly like it; those in most documents first. */
export function similarTerms<T extends { readonly live: number }>(
  term: string,
  vocabulary: ReadonlyMap<string, T>,
): T[] {
  const prefixed = select(vocabulary, (candidate) => candidate.startsWith(term));
  if (prefixed.length > 0 || term.length < MIN_FUZZY_LENGTH) {
    return prefixed;
  }
  const mistakes = term.length < TWO_MISTAKES_LENGTH ? 1 : 2;
  return select(
    vocabulary,
    (candidate) =>
      // Few mistake the first letter, and looking at it first spares most of the work.
      candidate.charCodeAt(0) === term.charCodeAt(0) &&
      Math.abs(candidate.length - term.length) <= mistakes &&
      distanceWithin(candidate, term, mistakes),
  );
}

function select<T extends { readonly live: number }>(
  vocabulary: ReadonlyMap<string, T>,
  matches: (candidate: string) => boolean,
): T[] {
  const found: [string, T][] = [];
  for (const entry of vocabulary) {
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
