import type { FormatReader, ReportLimits } from "../report.ts";
import type { ReportSink } from "../report-sink.ts";
import { createReportDecoder, type ReportDecoder } from "./decoder.ts";
import { createLines, type ReportLine } from "./lines.ts";

/** What a format makes of its lines. */
export interface LineHandler {
  line(line: ReportLine): void;
  /** There are no more lines. */
  end(): void;
}

/** Reads a format of lines. Lines that are too long are an error: what they tell is missing. */
export function createLineReader(handler: LineHandler, sink: ReportSink, limits: ReportLimits): FormatReader {
  let decoder: ReportDecoder | undefined;
  let beginning = Buffer.alloc(0);
  const lines = createLines(limits.maxLineLength, handler.line, (number) =>
    sink.error(`a line of more than ${limits.maxLineLength} characters was left out`, `line ${number}`),
  );

  function begin(): ReportDecoder {
    decoder = createReportDecoder(beginning, sink.warning);
    lines.write(decoder.decode(beginning));
    return decoder;
  }

  return {
    write(bytes) {
      if (decoder !== undefined) {
        lines.write(decoder.decode(bytes));
        return;
      }
      beginning = Buffer.concat([beginning, bytes]);
      if (beginning.length >= 4) {
        begin();
      }
    },
    end() {
      lines.write((decoder ?? begin()).end());
      lines.end();
      handler.end();
    },
  };
}
