/** One step of a path into a JSON value: a member's name, an item's index, or a map entry's key. */
export type Segment = string | number | { readonly key: string };

/** Which of a field's two names is told: the one of Protobuf JSON, or the one in the `.proto` file. */
export type FieldNames = "json" | "proto";

/** The name of a field to tell. */
export function nameOf(
  field: { readonly name: string; readonly jsonName: string },
  names: FieldNames,
): string {
  return names === "json" ? field.jsonName : field.name;
}

/** Longest part of a name or text from outside that a message repeats, in characters. */
const MAX_QUOTED = 60;

/** Prints a path such as `arguments.forecast.days[2].labels["a"]`. */
export function printPath(root: string, segments: readonly Segment[]): string {
  let path = root;
  for (const segment of segments) {
    if (typeof segment === "number") {
      path += `[${segment}]`;
    } else if (typeof segment === "string" && /^[A-Za-z_@$][\w$-]{0,99}$/.test(segment)) {
      path += path === "" ? segment : `.${segment}`;
    } else {
      path += `[${quote(typeof segment === "string" ? segment : segment.key)}]`;
    }
  }
  return path;
}

/** A text in quotation marks, cut where it is long. */
export function quote(text: string): string {
  return JSON.stringify(text.length > MAX_QUOTED ? `${text.slice(0, MAX_QUOTED)}…` : text);
}

/** What a JSON value is, in words. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case "string":
      return `the string ${quote(value)}`;
    case "number":
      return `the number ${value}`;
    case "boolean":
      return String(value);
    case "object":
      if (value === null) {
        return "null";
      }
      if (Array.isArray(value)) {
        return value.length === 1 ? "an array of 1 item" : `an array of ${value.length} items`;
      }
      return "an object";
    default:
      return `a value that is not JSON (${typeof value})`;
  }
}

/** Candidates longer than this, or beyond this many, are not compared. */
const MAX_WORD = 64;
const MAX_CANDIDATES = 500;

/** The candidate that a misspelt word most likely stands for; undefined when none is near. */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  if (word.length === 0 || word.length > MAX_WORD) {
    return undefined;
  }
  const wanted = fold(word);
  let best: string | undefined;
  let bestDistance = Math.floor(word.length / 3) + 1;
  let compared = 0;
  for (const candidate of candidates) {
    if (++compared > MAX_CANDIDATES) {
      break;
    }
    if (candidate.length > MAX_WORD) {
      continue;
    }
    const distance = editDistance(wanted, fold(candidate), bestDistance);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** The names that a message lists, and the one that was probably meant. */
export function oneOf(names: readonly string[], given?: string): string {
  const shown = names
    .slice(0, 12)
    .map((name) => quote(name))
    .join(", ");
  const more = names.length > 12 ? ` and ${names.length - 12} more` : "";
  return `one of ${shown}${more}${given === undefined ? "" : didYouMean(given, names)}`;
}

export function didYouMean(word: string, candidates: Iterable<string>): string {
  const meant = nearest(word, candidates);
  return meant === undefined ? "" : ` (did you mean ${quote(meant)}?)`;
}

/** Spelling differences that do not change a name for people: case, and how words are joined. */
function fold(word: string): string {
  return word.toLowerCase().replaceAll(/[-_ ]/g, "");
}

/**
 * The Damerau-Levenshtein distance of adjacent transpositions (optimal string alignment), or `limit` when it is not
 * smaller. https://en.wikipedia.org/wiki/Damerau-Levenshtein_distance
 */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) {
    return limit;
  }
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(at(previous, j) + 1, at(row, j - 1) + 1, at(previous, j - 1) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, at(before, j - 2) + 1);
      }
      row.push(cost);
    }
    before = previous;
    previous = row;
  }
  return Math.min(at(previous, b.length), limit);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? 0;
}
