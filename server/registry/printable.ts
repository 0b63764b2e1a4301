/** Text from elsewhere, made safe to store and show: at most `maxLength` characters, well-formed, on one line. */
export function printable(text: string, maxLength = 1_000): string {
  // PostgreSQL stores neither NUL nor unpaired surrogates.
  const line = text.replaceAll(/\p{Cc}+/gu, " ").trim();
  return (line.length > maxLength ? `${line.slice(0, maxLength - 1)}…` : line).toWellFormed();
}
