import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
  type Scalar,
  type YAMLMap,
  type YAMLSeq,
} from "yaml";
import type { Finding, FindPlace, Place } from "./problems.ts";

/** As long may a text be, in bytes of UTF-8. */
export const MAX_TEXT_BYTES = 256 * 1024;

/**
 * As many words, marks and line ends may it have: reading these is what takes time, 2 to 3 µs each. A text that people
 * write has one for every four characters.
 */
const MAX_LEXEMES = 100_000;

/** As deep may it nest; deeper values do not fit into google.protobuf.Struct. */
const MAX_DEPTH = 100;

/** As many values may it have, those that aliases repeat counted each time. */
const MAX_VALUES = 200_000;

/** What a text says. `json`: undefined when it cannot be said. */
export interface TextContent {
  readonly json: JsonValue | undefined;
  readonly findings: readonly (Finding & { readonly place: Place | undefined })[];
  readonly place: FindPlace;
}

/** Reads YAML 1.2 or JSON, which is contained in it. Anchors and merges (`<<`) are allowed. */
export function readText(text: string): TextContent {
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_TEXT_BYTES) {
    return refused(`the text has ${bytes} bytes, and may have ${MAX_TEXT_BYTES}; divide it into workflows`);
  }
  if (!text.isWellFormed()) return refused("the text is not valid Unicode; save it as UTF-8");
  const lines = new LineCounter();
  try {
    if (hasTooManyLexemes(text)) {
      return refused(
        `the text has more than ${MAX_LEXEMES} words and marks; divide it into workflows, or give large data as input`,
      );
    }
    return new Reader(lines).read(parse(text, lines));
  } catch (error) {
    // The library recurses with the nesting of the text.
    if (error instanceof RangeError) return refused("the text nests too deeply");
    throw error;
  }
}

function hasTooManyLexemes(text: string): boolean {
  let count = 0;
  for (const _ of new Lexer().lex(text)) {
    if (++count > MAX_LEXEMES) return true;
  }
  return false;
}

function parse(text: string, lines: LineCounter): Document {
  const { stackTraceLimit } = Error;
  try {
    // The library makes an error for everything that is wrong, 100,000 at times. Their stacks, which nobody reads, would
    // take ten times as long as all else.
    Error.stackTraceLimit = 0;
    // The library's own look for duplicate keys takes time quadratic in their number.
    return parseDocument(text, { lineCounter: lines, uniqueKeys: false, prettyErrors: false });
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

function refused(message: string): TextContent {
  return {
    json: undefined,
    findings: [{ reason: "SYNTAX", field: "", message, place: { line: 1, column: 1 } }],
    place: () => undefined,
  };
}

type Document = ReturnType<typeof parseDocument>;

class Reader {
  readonly #lines: LineCounter;
  readonly #findings: (Finding & { readonly place: Place | undefined })[] = [];
  readonly #anchors = new Map<string, Node>();
  /** Anchors whose nodes are being read. */
  readonly #open = new Set<Node>();
  #values = 0;

  constructor(lines: LineCounter) {
    this.#lines = lines;
  }

  read(document: Document): TextContent {
    for (const { message, pos, code } of [...document.errors, ...document.warnings]) {
      this.#report("SYNTAX", "", wordError(code, message), pos[0]);
    }
    const { contents } = document;
    const json = contents === null || this.#findings.length > 0 ? undefined : this.#value(contents, "", 0);
    if (contents === null && this.#findings.length === 0) this.#report("SYNTAX", "", "the text is empty", 0);
    return {
      json: this.#findings.length > 0 ? undefined : json,
      findings: this.#findings,
      place: (field) => this.#find(contents, field),
    };
  }

  #value(node: Node, path: string, depth: number): JsonValue {
    if (this.#values++ === MAX_VALUES) {
      this.#report(
        "SYNTAX",
        path,
        `the text has more than ${MAX_VALUES} values, counting what aliases repeat`,
        start(node),
      );
    }
    if (this.#values > MAX_VALUES) return null;
    if (depth > MAX_DEPTH) {
      this.#report("SYNTAX", path, `nests deeper than ${MAX_DEPTH} levels`, start(node));
      return null;
    }
    if (isAlias(node)) return this.#alias(node.source, node, path, depth);
    if ("anchor" in node && typeof node.anchor === "string") this.#anchors.set(node.anchor, node);
    if (isScalar(node)) return this.#scalar(node, path);
    this.#open.add(node);
    const value = isMap<Node, Node | null>(node)
      ? this.#map(node, path, depth)
      : isSeq<Node>(node)
        ? node.items.map((item, index) => this.#value(item, `${path}[${index}]`, depth + 1))
        : null;
    this.#open.delete(node);
    return value;
  }

  #alias(name: string, alias: Node, path: string, depth: number): JsonValue {
    const node = this.#anchors.get(name);
    if (node === undefined || this.#open.has(node)) {
      const message = node ? `*${name} stands within what it repeats` : `nothing before is marked &${name}`;
      this.#report("SYNTAX", path, message, start(alias));
      return null;
    }
    return this.#value(node, path, depth);
  }

  #scalar(node: Scalar, path: string): JsonValue {
    const { value } = node;
    if (typeof value === "string") {
      if (!value.isWellFormed()) this.#report("SYNTAX", path, "the text is not valid Unicode", start(node));
      return value;
    }
    if (value === null || typeof value === "boolean") return value;
    if (typeof value === "number" && Number.isFinite(value)) return value;
    this.#report(
      "SYNTAX",
      path,
      `${String(node.source ?? value)} has no JSON; write it in quotes`,
      start(node),
    );
    return null;
  }

  #map(map: YAMLMap<Node, Node | null>, path: string, depth: number): JsonObject {
    const entries = new Map<string, JsonValue>();
    const merged: JsonObject[] = [];
    for (const { key, value } of map.items) {
      const name = this.#key(key, path);
      if (name === undefined) continue;
      const child = path === "" ? name : `${path}.${name}`;
      if (name === "<<" && isScalar(key) && key.type === "PLAIN") {
        merged.push(...this.#merged(value, child, depth));
        continue;
      }
      if (entries.has(name)) {
        this.#report("DUPLICATE_KEY", child, `"${name}" is there twice; remove one`, start(key));
        continue;
      }
      entries.set(name, value === null ? null : this.#value(value, child, depth + 1));
    }
    for (const other of merged) {
      for (const [name, value] of Object.entries(other)) if (!entries.has(name)) entries.set(name, value);
    }
    return Object.fromEntries(entries);
  }

  /** What `<<` takes into a map: another, or several, of which the first that has a field counts. */
  #merged(value: Node | null, path: string, depth: number): JsonObject[] {
    const maps = [value === null ? null : this.#value(value, path, depth)].flat();
    if (!maps.every(isObject)) {
      this.#report(
        "SYNTAX",
        path,
        '"<<" merges maps, as in "<<: *name"; write the key in quotes',
        start(value),
      );
    }
    return maps.filter(isObject);
  }

  #key(key: Node, path: string): string | undefined {
    const scalar = isAlias(key) ? this.#anchors.get(key.source) : key;
    if (isScalar(scalar) && scalar.value !== null) return String(scalar.source ?? scalar.value);
    this.#report("SYNTAX", path, "a key must be a text", start(key));
    return undefined;
  }

  #report(reason: string, field: string, message: string, offset: number | undefined): void {
    if (this.#findings.length >= 100) return;
    this.#findings.push({
      reason,
      field,
      message,
      place: offset === undefined ? undefined : this.#placeAt(offset),
    });
  }

  #placeAt(offset: number): Place {
    const { line, col } = this.#lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  }

  #find(root: Node | null, field: string): Place | undefined {
    let node = root;
    let offset = root === null ? undefined : start(root);
    for (const segment of segments(field)) {
      if (isAlias(node)) node = this.#anchors.get(node.source) ?? null;
      const next = typeof segment === "number" ? itemAt(node, segment) : memberAt(node, segment);
      if (next === undefined) break;
      offset = next.offset ?? offset;
      node = next.node;
    }
    return offset === undefined ? undefined : this.#placeAt(offset);
  }
}

interface Found {
  readonly node: Node | null;
  readonly offset: number | undefined;
}

function itemAt(node: Node | null, index: number): Found | undefined {
  const item = isSeq<Node>(node) ? (node as YAMLSeq<Node>).items[index] : undefined;
  return item === undefined ? undefined : { node: item, offset: start(item) };
}

/** Fields may be written in either of their two names. */
function memberAt(node: Node | null, name: string): Found | undefined {
  if (!isMap<Node, Node | null>(node)) return undefined;
  const { items } = node;
  const pair =
    items.find((each) => keyOf(each) === name) ?? items.find((each) => fold(keyOf(each)) === fold(name));
  return pair === undefined ? undefined : { node: pair.value, offset: start(pair.key) };
}

function keyOf(pair: Pair<Node, Node | null>): string {
  return isScalar(pair.key) ? String(pair.key.source ?? pair.key.value) : "";
}

function fold(name: string): string {
  return name.replaceAll("_", "").toLowerCase();
}

function start(node: Node | null): number | undefined {
  return node?.range?.[0];
}

/** `steps[2].tool.arguments["a b"]` in its parts. */
function segments(field: string): (string | number)[] {
  return Array.from(
    field.matchAll(/\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]|([^.[\]]+)/g),
    ([, index, quoted, name]) => {
      if (index !== undefined) return Number(index);
      return quoted === undefined ? (name ?? "") : String(JSON.parse(quoted));
    },
  );
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function wordError(code: string, message: string): string {
  switch (code) {
    case "TAB_AS_INDENT":
      return "a tab indents this line; YAML is indented with spaces";
    case "MULTIPLE_DOCS":
      return "a second document begins here (---); put one workflow into a text";
    default:
      // The library recurses with the nesting of the text, and reports what comes of it as an error of the text.
      return /call stack/i.test(message) ? "the text nests too deeply" : message;
  }
}
