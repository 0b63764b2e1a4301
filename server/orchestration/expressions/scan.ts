/** A piece of a text: text as it is, or the source of an expression. */
export type Piece =
  | { readonly kind: "text"; readonly text: string }
  | {
      readonly kind: "expression";
      readonly source: string;
      /** Where the source begins in the text. */
      readonly offset: number;
    };

/** Something that a scanner cannot get past. */
export class ScanError extends Error {
  override readonly name = "ScanError";
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message);
    this.offset = offset;
  }
}

/**
 * Splits a text at its `${ … }`. `$${` is a literal `${`. A `}` within brackets, a string literal or a comment of the
 * expression does not end it.
 */
export function split(text: string): Piece[] {
  const pieces: Piece[] = [];
  let literal = "";
  let at = 0;
  for (;;) {
    const dollar = text.indexOf("${", at);
    if (dollar < 0) break;
    if (dollar > at && text[dollar - 1] === "$") {
      literal += `${text.slice(at, dollar - 1)}\${`;
      at = dollar + 2;
      continue;
    }
    literal += text.slice(at, dollar);
    if (literal !== "") pieces.push({ kind: "text", text: literal });
    literal = "";
    const start = dollar + 2;
    const end = expressionEnd(text, start);
    pieces.push({ kind: "expression", source: text.slice(start, end), offset: start });
    at = end + 1;
  }
  literal += text.slice(at);
  if (literal !== "" || pieces.length === 0) pieces.push({ kind: "text", text: literal });
  return pieces;
}

/** The deepest nesting of brackets in the source of an expression. Stops at the first that does not match. */
export function bracketDepth(source: string): number {
  let depth = 0;
  let deepest = 0;
  for (const { character } of brackets(source, 0)) {
    depth += isOpening(character) ? 1 : -1;
    deepest = Math.max(deepest, depth);
  }
  return deepest;
}

/** Where the `}` is that ends the expression which begins at `start`. */
function expressionEnd(text: string, start: number): number {
  let depth = 0;
  for (const { character, offset } of brackets(text, start)) {
    if (character === "}" && depth === 0) return offset;
    depth += isOpening(character) ? 1 : -1;
    if (depth < 0) throw new ScanError(`"${character}" closes nothing`, offset);
  }
  throw new ScanError(`"\${" has no matching "}"; write "$\${" where the text itself is meant`, start - 2);
}

function isOpening(character: string): boolean {
  return character === "(" || character === "[" || character === "{";
}

/** The brackets of CEL source that are not in string literals or comments. */
function* brackets(text: string, start: number): Generator<{ character: string; offset: number }> {
  let at = start;
  while (at < text.length) {
    const character = text.charAt(at);
    if (character === '"' || character === "'") {
      at = stringEnd(text, at, isRaw(text, at, start));
    } else if (character === "/" && text[at + 1] === "/") {
      const newline = text.slice(at).search(/[\r\n]/);
      if (newline < 0) return;
      at += newline;
    } else {
      if ("()[]{}".includes(character)) yield { character, offset: at };
      at++;
    }
  }
}

/** Whether the quote at `at` is that of a raw literal: `r"…"`, `rb"…"`, `bR'…'`. */
function isRaw(text: string, at: number, start: number): boolean {
  let from = at;
  while (from > start && /[a-zA-Z0-9_]/.test(text.charAt(from - 1)) && at - from < 3) from--;
  return /^(?:r|rb|br)$/i.test(text.slice(from, at));
}

/** Behind the closing quotes of the string literal whose quotes open at `at`. */
function stringEnd(text: string, at: number, raw: boolean): number {
  const quote = text.charAt(at);
  const triple = quote.repeat(3);
  const quotes = text.startsWith(triple, at) ? triple : quote;
  let next = at + quotes.length;
  while (next < text.length) {
    if (text.startsWith(quotes, next)) return next + quotes.length;
    if (quotes.length === 1 && /[\r\n]/.test(text.charAt(next))) {
      throw new ScanError(
        `the string literal ends with its line, without a ${quotes}; write a line break as \\n, and between the double quotes of YAML as \\\\n`,
        at,
      );
    }
    next += text[next] === "\\" && !raw ? 2 : 1;
  }
  throw new ScanError(`the string literal has no closing ${quotes}`, at);
}
