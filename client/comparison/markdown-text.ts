/**
 * Text of tests as a code span, on one line. Code spans are the one place where Markdown, HTML,
 * addresses, mentions and references to issues are text for sure: GitHub and GitLab look for mentions in what has been
 * rendered, so neither backslashes nor character references keep them out.
 */
export function markdownCode(text: string, maxChars = 300): string {
  const shown = shorten(visible(text.replaceAll(/\s+/g, " ").trim()), maxChars);
  if (shown === "") {
    return "";
  }
  const fence = "`".repeat(longestRun(shown) + 1);
  const pad = shown.startsWith("`") || shown.endsWith("`") ? " " : "";
  return fence + pad + shown + pad + fence;
}

/**
 * The same for a cell of a table. A cell ends at a bar, in code too, unless a backslash is before it; one that is there
 * already becomes a sign that looks like it.
 */
export function markdownCell(text: string, maxChars = 300): string {
  return markdownCode(text, maxChars)
    .replaceAll(/\\+(?=\|)/g, (slashes) => "\u2216".repeat(slashes.length))
    .replaceAll("|", "\\|");
}

/** Text of several lines as a fenced block. */
export function markdownBlock(text: string, maxChars = 1_000): string {
  const lines = text
    .replaceAll(/\r\n?/g, "\n")
    .split("\n")
    .map((line) => visible(line.replaceAll("\t", "  ")).trimEnd());
  const shown = shorten(lines.join("\n").trim(), maxChars);
  const fence = "`".repeat(Math.max(3, longestRun(shown) + 1));
  return `${fence}text\n${shown}\n${fence}`;
}

function longestRun(text: string): number {
  return Math.max(0, ...(text.match(/`+/g) ?? []).map((run) => run.length));
}

/** Without colours; what cannot be seen, or turns the direction of text, becomes a sign that can be seen. */
function visible(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(/\p{Cc}\[[0-9;]*[A-Za-z]/gu, "")
    .replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, "\u{fffd}");
}

function shorten(text: string, maxChars: number): string {
  return text.length <= maxChars ? text : `${text.slice(0, maxChars - 1).toWellFormed()}…`;
}
