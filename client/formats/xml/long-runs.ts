/**
 * Where in XML a character stands, as far as it takes to tell which characters a parser would gather: in text, a tag,
 * an attribute's value, a comment, a CDATA section, a processing instruction or a document type declaration.
 */
type Place = "text" | "tag" | "value" | "comment" | "cdata" | "instruction" | "doctype";

/** What ends a run of characters in each place. A tag also ends at a quote, where a value begins. */
const ENDS: Readonly<Record<Exclude<Place, "tag" | "value">, string>> = {
  text: "<",
  comment: "-->",
  cdata: "]]>",
  instruction: "?>",
  doctype: ">",
};

/** What stands behind a `<` that begins no tag. */
const OPENINGS: readonly (readonly [string, Place])[] = [
  ["!--", "comment"],
  ["![CDATA[", "cdata"],
  ["!", "doctype"],
  ["?", "instruction"],
];

export interface LongRunsTarget {
  /** What remains. */
  pass(text: string): void;
  /** What was left out. */
  cut(text: string): void;
  /** A tag is longer than `MAX_TAG_LENGTH`. Expected to throw. */
  tagTooLong(): void;
}

/** How many characters a tag may have once the values of its attributes are cut. */
const MAX_TAG_LENGTH = 4 * 1024 * 1024;

/**
 * Leaves out the middle of XML before a parser gathers it: of a run of text, a CDATA section, a value and so on that is
 * longer than `maxLength`, only the beginning is passed on. A log of 100 MB in `<system-out>` would else be held in
 * memory as a whole. Names of tags and attributes are not cut: a tag that becomes too long with its names and what is
 * left of its values is told instead.
 */
export function createLongRuns(maxLength: number, to: LongRunsTarget) {
  let place: Place = "text";
  let quote = "";
  let run = 0;
  let tagLength = 0;
  let subset = 0;
  // Characters of which it cannot be told yet to what they belong, because the piece ended.
  let held = "";

  function pass(text: string): void {
    if (place === "tag" || place === "value") {
      tagLength += text.length;
      if (tagLength > MAX_TAG_LENGTH) {
        to.tagTooLong();
      }
    }
    if (text !== "") {
      to.pass(text);
    }
  }

  /** Passes on what fits of a run. */
  function gather(text: string): void {
    const room = Math.max(0, maxLength - run);
    run += text.length;
    if (text.length <= room) {
      pass(text);
      return;
    }
    pass(text.slice(0, room));
    to.cut(text.slice(room));
  }

  function enter(next: Place): void {
    place = next;
    run = 0;
  }

  /** Reads one run, or as much of it as there is. Returns where to go on; undefined: with more text. */
  function step(text: string, from: number, last: boolean): number | undefined {
    if (place === "tag") {
      return stepTag(text, from);
    }
    const end = place === "value" ? quote : ENDS[place];
    const at = text.indexOf(end, from);
    if (at === -1) {
      // The end may have begun.
      const keep = last ? 0 : Math.min(end.length - 1, text.length - from);
      gather(text.slice(from, text.length - keep));
      held = text.slice(text.length - keep);
      return undefined;
    }
    if (place === "text") {
      return beginMarkup(text, from, at, last);
    }
    gather(text.slice(from, at));
    pass(end);
    if (place === "doctype") {
      // `>` inside of the internal subset ends declarations, not the whole.
      subset += count(text, "[", from, at) - count(text, "]", from, at);
      if (subset > 0) {
        return at + 1;
      }
    }
    enter(place === "value" ? "tag" : "text");
    return at + end.length;
  }

  function beginMarkup(text: string, from: number, at: number, last: boolean): number | undefined {
    const behind = text.slice(at + 1, at + 9);
    if (!last && OPENINGS.some(([opening]) => opening !== behind && opening.startsWith(behind))) {
      gather(text.slice(from, at));
      held = text.slice(at);
      return undefined;
    }
    gather(text.slice(from, at));
    const [opening, next] = OPENINGS.find(([start]) => behind.startsWith(start)) ?? ["", "tag" as const];
    pass(`<${opening}`);
    subset = 0;
    tagLength = 0;
    enter(next);
    return at + 1 + opening.length;
  }

  function stepTag(text: string, from: number): number | undefined {
    const match = /["'>]/g;
    match.lastIndex = from;
    const at = match.exec(text)?.index;
    if (at === undefined) {
      pass(text.slice(from));
      return undefined;
    }
    pass(text.slice(from, at + 1));
    quote = text.charAt(at);
    enter(quote === ">" ? "text" : "value");
    return at + 1;
  }

  function write(piece: string, last: boolean): void {
    const text = held + piece;
    held = "";
    for (let from: number | undefined = 0; from !== undefined && from < text.length; ) {
      from = step(text, from, last);
    }
  }

  return {
    write: (piece: string): void => write(piece, false),
    end: (): void => write("", true),
  };
}

function count(text: string, character: string, from: number, to: number): number {
  let found = 0;
  for (let at = text.indexOf(character, from); at !== -1 && at < to; at = text.indexOf(character, at + 1)) {
    found++;
  }
  return found;
}
