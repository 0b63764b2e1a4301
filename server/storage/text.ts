/** The text as PostgreSQL can keep it, which has neither NUL in a text nor half of a surrogate pair. */
export function storable(text: string): string {
  return text.toWellFormed().replaceAll("\0", "\ufffd");
}

export function storableLabels(labels: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(labels).map(([name, value]) => [storable(name), storable(value)] as const),
  );
}
