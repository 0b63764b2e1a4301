const MAX_NAMES = 5;

/** What there is instead of a name that there is not, the most similar first: `there are a, b and 3 more`. */
export function closestNames(name: string, existing: readonly string[]): string {
  if (existing.length === 0) {
    return "there are none";
  }
  const wanted = new Set(partsOf(name));
  const shown = existing
    .map((each) => ({ each, common: partsOf(each).filter((part) => wanted.has(part)).length }))
    .sort((a, b) => b.common - a.common || (a.each < b.each ? -1 : 1))
    .slice(0, MAX_NAMES)
    .map(({ each }) => each);
  const more = existing.length - shown.length;
  return `there ${existing.length === 1 ? "is" : "are"} ${shown.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}

function partsOf(name: string): string[] {
  return name.split(/[/.\s]+/);
}
