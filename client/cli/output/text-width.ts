import type { Output } from "../io.ts";

const graphemes = new Intl.Segmenter();

const ASCII = /^[\x20-\x7e]*$/;
const ZERO = /^[\p{M}\p{Cf}\p{Cc}]+$/u;
const WIDE =
  /^(?:\p{Emoji_Presentation}|\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Hangul}|[\u3000-\u303e\uff01-\uff60\uffe0-\uffe6])/u;

/** How many cells of a terminal the text takes. */
export function textWidth(text: string): number {
  if (ASCII.test(text)) return text.length;
  let width = 0;
  for (const { segment } of graphemes.segment(text)) width += graphemeWidth(segment);
  return width;
}

/** The text, cut with `…` where it takes more than `width` cells. */
export function truncate(text: string, width: number): string {
  if (textWidth(text) <= width) return text;
  let used = 0;
  let kept = "";
  for (const { segment } of graphemes.segment(text)) {
    used += graphemeWidth(segment);
    if (used > width - 1) break;
    kept += segment;
  }
  return `${kept.trimEnd()}…`;
}

/** The text on lines of at most `width` cells, broken between words. Paragraphs and lists in the text stay. */
export function wrap(text: string, width: number): string[] {
  const unfolded = text.replaceAll(/(?<=\S)\n(?=[^\s*-])/g, " ");
  return unfolded.split("\n").flatMap((paragraph) => {
    const indent = /^ */.exec(paragraph)?.[0] ?? "";
    const lines: string[] = [];
    let line = "";
    for (const word of paragraph.trim().split(" ")) {
      const longer = line === "" ? indent + word : `${line} ${word}`;
      if (line !== "" && textWidth(longer) > width) {
        lines.push(line);
        line = indent + word;
      } else line = longer;
    }
    return [...lines, line];
  });
}

/** How wide a paragraph below an indent of 2 is set: as the terminal allows, and no wider than reads well. */
export function proseWidth({ io }: { readonly io: { readonly stdout: Output } }): number {
  return io.stdout.isTTY === true ? Math.max(Math.min(88, (io.stdout.columns ?? 80) - 2), 20) : 88;
}

function graphemeWidth(grapheme: string): number {
  if (ZERO.test(grapheme)) return 0;
  return WIDE.test(grapheme) ? 2 : 1;
}

/**
 * Text from elsewhere on one line. Control characters would let a service's description move the cursor or change the
 * title of the terminal, so each becomes a visible `�`.
 */
export function oneLine(text: string): string {
  return printable(text.replaceAll(/\s+/g, " ").trim());
}

/** Text from elsewhere with its line breaks, but without control characters. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, (char) => (char === "\n" ? char : "�"));
}
