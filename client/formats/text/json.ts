import type { FormatReader, ReportLimits } from "../report.ts";
import type { ReportSink } from "../report-sink.ts";
import { createReportDecoder } from "./decoder.ts";

/**
 * Reads a JSON document as a whole. Of one that breaks off or is broken, everything before is given to `read`, as if all
 * that is open had been closed after the last complete part.
 *
 * @param partDepth how many lists and objects are around a part, such as a test; parts are given whole or not at all
 */
export function createJsonReader(
  sink: ReportSink,
  limits: ReportLimits,
  partDepth: number,
  read: (document: unknown) => void,
): FormatReader {
  let chunks: Uint8Array[] = [];
  let size = 0;
  return {
    write(bytes) {
      if (sink.broken) {
        return;
      }
      size += bytes.length;
      if (size > limits.maxJsonBytes) {
        chunks = [];
        sink.error(
          `a JSON report may have ${limits.maxJsonBytes} bytes, as it is read as a whole; split it, or use a format ` +
            "that is read piece by piece, such as JUnit XML or lcov",
          `byte ${limits.maxJsonBytes}`,
        );
        return;
      }
      chunks.push(Uint8Array.from(bytes));
    },
    end() {
      if (sink.broken) {
        return;
      }
      const bytes = Buffer.concat(chunks);
      chunks = [];
      const decoder = createReportDecoder(bytes, sink.warning);
      const text = decoder.decode(bytes) + decoder.end();
      const document = parse(text, sink, partDepth);
      if (document !== undefined) {
        read(document);
      }
    },
  };
}

function parse(text: string, sink: ReportSink, partDepth: number): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    const scan = scanJson(text, partDepth);
    const breaksOff = scan.errorAt >= text.trimEnd().length;
    sink.error(
      `${breaksOff ? "the report breaks off" : "this is not JSON"}; what stands before was kept`,
      placeIn(text, scan.errorAt),
    );
    try {
      return scan.readable === "" ? undefined : (JSON.parse(scan.readable) as unknown);
    } catch {
      // Nested more deeply than can be parsed.
      return undefined;
    }
  }
}

/** The line and column of a character. */
function placeIn(text: string, at: number): string {
  const before = text.slice(0, at);
  const line = before.split("\n").length;
  return `line ${line}, column ${at - before.lastIndexOf("\n")}`;
}

/** Where JSON stops to be JSON, and valid JSON of what stands before. */
interface JsonScan {
  readonly errorAt: number;
  readonly readable: string;
}

const LITERAL = /(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?=[\s,\]}])/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const SPACE = /[ \t\r\n]*/y;

/** Only for text that `JSON.parse` refused. */
function scanJson(text: string, partDepth: number): JsonScan {
  // What is open, as what closes it.
  const open: string[] = [];
  let at = 0;
  let safe = 0;
  let closers = "";
  let expected: "value" | "first" | "key" | "firstKey" | "colon" | "next" = "value";

  function keep(): void {
    if (open.length <= partDepth) {
      safe = at;
      closers = open.toReversed().join("");
    }
  }

  while (true) {
    at = skip(SPACE, text, at) ?? at;
    const character = text[at];
    if (character === undefined) {
      break;
    }
    if (expected === "next" ? character === open.at(-1) : closesEmpty(expected, character)) {
      open.pop();
      at++;
      expected = "next";
      keep();
      if (open.length === 0) {
        break;
      }
    } else if (expected === "next" || expected === "colon") {
      if (character !== (expected === "colon" ? ":" : ",")) {
        break;
      }
      expected = expected === "colon" || open.at(-1) === "]" ? "value" : "key";
      at++;
    } else if (expected === "key" || expected === "firstKey") {
      const end = stringEnd(text, at);
      if (end === undefined) {
        break;
      }
      at = end;
      expected = "colon";
    } else if (character === "{" || character === "[") {
      open.push(character === "{" ? "}" : "]");
      at++;
      expected = character === "{" ? "firstKey" : "first";
      keep();
    } else {
      const end = character === '"' ? stringEnd(text, at) : skip(LITERAL, text, at);
      if (end === undefined || open.length === 0) {
        break;
      }
      at = end;
      expected = "next";
      keep();
    }
  }
  return { errorAt: at, readable: text.slice(0, safe) + closers };
}

function closesEmpty(expected: string, character: string): boolean {
  return (expected === "first" && character === "]") || (expected === "firstKey" && character === "}");
}

function skip(pattern: RegExp, text: string, at: number): number | undefined {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : undefined;
}

/** Where the string that begins here has ended. Undefined: it does not, or is none. */
function stringEnd(text: string, at: number): number | undefined {
  if (text[at] !== '"') {
    return undefined;
  }
  for (let i = at + 1; i < text.length; i++) {
    const character = text[i];
    if (character === "\\") {
      const end = skip(ESCAPE, text, i);
      if (end === undefined) {
        return undefined;
      }
      i = end - 1;
    } else if (character === '"') {
      return i + 1;
    } else if (character !== undefined && character < " ") {
      return undefined;
    }
  }
  return undefined;
}

/** The value as an object, as far as it is one. */
export function objectOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>) // Which was just seen.
    : undefined;
}

export function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

export function numberOf(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
