import lcov from "@friedemannsommer/lcov-parser/sync";
import type { FormatReader, ParseReportOptions, ReportLimits } from "../report.ts";
import type { ReportSink } from "../report-sink.ts";
import { createLineReader } from "../text/line-reader.ts";
import { createPathRule } from "../text/paths.ts";
import { linesOf } from "./merge.ts";

/** The fields of a tracefile, see `man geninfo`. */
const FIELD = /^(?:TN|SF|VER|FN|FNDA|FNF|FNH|FNL|FNA|BRDA|BRF|BRH|MCDC|MCF|MCH|DA|LF|LH):/;

/** Reads a tracefile of lcov, a record at a time. A record that breaks off is left out. */
export function createLcovReader(
  options: ParseReportOptions,
  sink: ReportSink,
  limits: ReportLimits,
): FormatReader {
  const relative = createPathRule(options.root);
  let record: string[] = [];
  let length = 0;
  let records = 0;
  let begunAt = 0;

  function endRecord(number: number): void {
    const text = `${record.join("\n")}\nend_of_record\n`;
    record = [];
    length = 0;
    const [section] = lcov({ from: text });
    if (section === undefined || section.path === "") {
      sink.error("a record without a file (`SF:`) was left out", `line ${number}`);
      return;
    }
    records++;
    const { branches, functions, lines } = section;
    const hits = new Map<number, number>();
    for (const { line, hit } of lines.details) {
      hits.set(line, Math.max(hits.get(line) ?? 0, hit));
    }
    sink.coverage({
      file: relative(section.path),
      lines: linesOf(hits),
      ...counted("branches", branches),
      ...counted("functions", functions),
    });
  }

  return createLineReader(
    {
      line({ text, number, complete }) {
        const line = text.trim();
        if (line === "end_of_record") {
          endRecord(number);
        } else if (FIELD.test(line) && complete) {
          begunAt = record.length === 0 ? number : begunAt;
          record.push(line);
          length += line.length;
          if (length > limits.maxJsonBytes) {
            sink.error("a record is too long and was left out", `line ${begunAt}`);
            record = [];
            length = 0;
          }
        } else if (complete && line !== "" && !line.startsWith("#")) {
          sink.warning(`not a field of an lcov tracefile: ${line.slice(0, 100)}`, `line ${number}`);
        } else if (!complete && record.length === 0) {
          sink.error("the report breaks off", `line ${number}`);
        }
      },
      end() {
        const isOpen = record.some((line) => !line.startsWith("TN:"));
        if (isOpen) {
          sink.error("the report breaks off inside of a record, which was left out", `line ${begunAt}`);
        } else if (records === 0 && !sink.broken) {
          sink.error("this is not an lcov tracefile: it has no record", "line 1");
        }
      },
    },
    sink,
    limits,
  );
}

/** By the details where there are any, else as the report adds them up. */
function counted<Name extends "branches" | "functions">(
  name: Name,
  summary: {
    readonly details: readonly { readonly hit: number }[];
    readonly hit: number;
    readonly instrumented: number;
  },
) {
  const { details } = summary;
  const total = details.length || Math.max(0, summary.instrumented);
  const covered = details.length > 0 ? details.filter(({ hit }) => hit > 0).length : Math.max(0, summary.hit);
  return name === "branches"
    ? { branchesTotal: total, branchesCovered: Math.min(covered, total) }
    : { functionsTotal: total, functionsCovered: Math.min(covered, total) };
}
