import type { FormatReader, ParseReportOptions, ReportLimits } from "../report.ts";
import type { ReportSink } from "../report-sink.ts";
import { createLineReader } from "../text/line-reader.ts";
import { createPathRule } from "../text/paths.ts";
import { linesOf, MAX_COVERED_LINES } from "./merge.ts";

const BLOCK = /^(.+):(\d{1,9})\.\d{1,9},(\d{1,9})\.\d{1,9} \d{1,9} (\d{1,20})$/;

/**
 * Reads Go's coverage profile: a line a block of statements, with how often it ran. A line of code ran as often as the
 * block around it that ran most. File names are import paths; `root` takes the module's name off them.
 */
export function createGoCoverReader(
  options: ParseReportOptions,
  sink: ReportSink,
  limits: ReportLimits,
): FormatReader {
  const relative = createPathRule(options.root);
  let file = "";
  let hits = new Map<number, number>();
  let hasMode = false;

  function endFile(): void {
    if (file !== "") {
      sink.coverage({ file: relative(file), lines: linesOf(hits) });
    }
    hits = new Map();
  }

  function block(name: string, first: number, last: number, count: number): void {
    if (name !== file) {
      endFile();
      file = name;
    }
    for (let line = first; line <= last && hits.size <= MAX_COVERED_LINES; line++) {
      hits.set(line, Math.max(hits.get(line) ?? 0, count));
    }
  }

  return createLineReader(
    {
      line({ text, number, complete }) {
        const [, name, first, last, count] = (complete && BLOCK.exec(text)) || [];
        if (/^mode: (?:set|count|atomic)\s*$/.test(text)) {
          hasMode = true;
        } else if (name !== undefined && Number(last) - Number(first) <= MAX_COVERED_LINES) {
          block(name, Number(first), Number(last), Number(count));
        } else if (!complete) {
          sink.error("the report breaks off; what stands before was kept", `line ${number}`);
        } else if (text.trim() !== "") {
          sink.error(
            "not a line of Go's coverage profile; it was left out, see `go tool cover`",
            `line ${number}`,
          );
        }
      },
      end() {
        endFile();
        if (!hasMode && !sink.broken) {
          sink.error("this is not Go's coverage profile: it does not say its `mode:`", "line 1");
        }
      },
    },
    sink,
    limits,
  );
}
