const MAX_TITLE = 80;

/** The beginning of a text, on one line. */
export function firstWords(text: string): string {
  // More than the title can need, and not all of a long text.
  const line = text
    .slice(0, MAX_TITLE * 10)
    .trim()
    .replaceAll(/\s+/g, " ")
    .toWellFormed();
  return shorten(line);
}

/** The first of the names, and how many more there are. */
export function namesTitle(names: readonly string[]): string {
  const [first = "", ...others] = names;
  const more = others.length > 0 ? ` and ${others.length} more` : "";
  return `${shorten(first.toWellFormed())}${more}`;
}

function shorten(line: string): string {
  const letters = [...line];
  return letters.length <= MAX_TITLE
    ? line
    : `${letters
        .slice(0, MAX_TITLE - 1)
        .join("")
        .trimEnd()}…`;
}
