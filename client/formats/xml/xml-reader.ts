import { SaxesParser } from "saxes";
import type { FormatReader, ReportLimits } from "../report.ts";
import type { ReportSink } from "../report-sink.ts";
import { createReportDecoder, ENCODING_BYTES, type ReportDecoder } from "../text/decoder.ts";
import { createLongRuns } from "./long-runs.ts";

export type XmlAttributes = Readonly<Record<string, string | undefined>>;

/** What a format makes of its elements. */
export interface XmlHandler {
  open(name: string, attributes: XmlAttributes): void;
  text(text: string): void;
  close(name: string): void;
  /** Where it stands, for the message about a report that breaks off, such as `in the test "adds"`. Empty: nowhere. */
  context(): string;
}

/** Tells where the reader is: `line 3, column 7`. */
export type Place = () => string;

/** Mistakes in single characters, after which the structure is still clear. */
const TOLERATED = [
  "disallowed character.",
  "undefined entity.",
  "disallowed character in entity name.",
  "malformed character entity.",
  "empty entity name.",
  'the string "]]>" is disallowed in char data.',
  "version number must match",
  "encoding value must match",
  "duplicate attribute",
];

class Stop extends Error {}

/**
 * Reads XML piece by piece. No entity is expanded besides the five of XML and characters by number; a document type
 * declaration that declares entities is refused. Reading stops at the first mistake in the structure; mistakes in single
 * characters are told once and read past.
 */
export function createXmlReader(
  makeHandler: (place: Place) => XmlHandler,
  sink: ReportSink,
  limits: ReportLimits,
): FormatReader {
  const parser = new SaxesParser();
  const told = new Set<string>();
  let decoder: ReportDecoder | undefined;
  let beginning = Buffer.alloc(0);
  let depth = 0;
  let lineOffset = 0;
  let cutTold = false;

  const place: Place = () => `line ${parser.line + lineOffset}, column ${Math.max(1, parser.column)}`;
  const handler = makeHandler(place);

  function stop(message: string): never {
    const context = handler.context();
    sink.error(`${message}${context && `, ${context}`}; what stands before was kept`, place());
    throw new Stop();
  }

  parser.on("error", (error) => {
    const message = error.message.replace(/^[0-9]+:[0-9]+: /, "").replace(/\.$/, "");
    if (!TOLERATED.some((start) => `${message}.`.startsWith(start))) {
      stop(wordsFor(message));
    }
    if (!told.has(message)) {
      told.add(message);
      sink.warning(`not XML: ${message}; it was read past, here and wherever it comes again`, place());
    }
  });
  parser.on("doctype", (doctype) => {
    if (/<!ENTITY/i.test(doctype)) {
      stop("the report declares entities, which are never expanded; write it without a document type");
    }
  });
  parser.on("opentag", ({ name, attributes }) => {
    depth++;
    if (depth > limits.maxDepth) {
      stop(`elements are nested more than ${limits.maxDepth} deep`);
    }
    handler.open(localName(name), attributes);
    if (sink.broken) {
      throw new Stop();
    }
  });
  parser.on("closetag", ({ name }) => {
    depth--;
    handler.close(localName(name));
  });
  parser.on("text", (text) => handler.text(text));
  parser.on("cdata", (text) => handler.text(text));

  const runs = createLongRuns(limits.maxTextLength, {
    pass: (text) => parser.write(text),
    cut(text) {
      for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) {
        lineOffset++;
      }
      if (!cutTold) {
        cutTold = true;
        sink.warning(
          `texts of more than ${limits.maxTextLength} characters are cut, here and wherever they come again`,
          place(),
        );
      }
    },
    tagTooLong: () => stop("a tag is too long"),
  });

  function guarded(read: () => void): void {
    if (sink.broken) {
      return;
    }
    try {
      read();
    } catch (error) {
      if (!(error instanceof Stop)) {
        throw error;
      }
    }
  }

  function begin(): ReportDecoder {
    decoder = createReportDecoder(beginning, sink.warning);
    runs.write(decoder.decode(beginning));
    return decoder;
  }

  return {
    write(bytes) {
      guarded(() => {
        if (decoder !== undefined) {
          runs.write(decoder.decode(bytes));
          return;
        }
        beginning = Buffer.concat([beginning, bytes]);
        if (beginning.length >= ENCODING_BYTES) {
          begin();
        }
      });
    },
    end() {
      guarded(() => {
        runs.write((decoder ?? begin()).end());
        runs.end();
        parser.close();
      });
    },
  };
}

function localName(name: string): string {
  return name.slice(name.indexOf(":") + 1);
}

/** What saxes says, in words that tell what it means for a report. */
function wordsFor(message: string): string {
  if (message.startsWith("unclosed tag") || message === "unexpected end") {
    return `the report breaks off (${message})`;
  }
  if (message.startsWith("document must contain a root")) {
    return "the report has no XML element";
  }
  return `not well-formed XML (${message})`;
}
