import type { FormatReader, ParseReportOptions, ReportLimits } from "../report.ts";
import type { ReportSink } from "../report-sink.ts";
import { createPathRule } from "../text/paths.ts";
import { createXmlReader, type Place, type XmlAttributes, type XmlHandler } from "../xml/xml-reader.ts";
import { linesOf, MAX_COVERED_LINES } from "./merge.ts";

/** A file while it is read; several classes may stand in one. */
interface MeasuredFile {
  readonly name: string;
  readonly hits: Map<number, number>;
  /** By line: how many branches there are, and were taken. */
  readonly branches: Map<number, readonly [total: number, covered: number]>;
  /** By class and name: whether it ran. */
  readonly functions: Map<string, boolean>;
}

/** Reads Cobertura's XML, as coverage.py, gcovr, Istanbul and others write it. */
export function createCoberturaReader(
  options: ParseReportOptions,
  sink: ReportSink,
  limits: ReportLimits,
): FormatReader {
  return createXmlReader((place) => createCoberturaHandler(options, sink, place), sink, limits);
}

function createCoberturaHandler(options: ParseReportOptions, sink: ReportSink, place: Place): XmlHandler {
  const relative = createPathRule(options.root);
  const sources: string[] = [];
  let source: string | undefined;
  let file: MeasuredFile | undefined;
  let className = "";
  let method: string | undefined;
  let depth = 0;

  function openClass(attributes: XmlAttributes): void {
    const name = attributes["filename"] ?? "";
    className = attributes["name"] ?? "";
    if (name !== file?.name) {
      flush();
      file = { name, hits: new Map(), branches: new Map(), functions: new Map() };
    }
  }

  function flush(): void {
    if (file === undefined || file.name === "") {
      return;
    }
    const branches = [...file.branches.values()];
    sink.coverage({
      file: relative(locate(file.name)),
      lines: linesOf(file.hits),
      branchesTotal: branches.reduce((sum, [total]) => sum + total, 0),
      branchesCovered: branches.reduce((sum, [, covered]) => sum + covered, 0),
      functionsTotal: file.functions.size,
      functionsCovered: [...file.functions.values()].filter(Boolean).length,
    });
    file = undefined;
  }

  /** File names are relative to a source folder; which one of several is not said. */
  function locate(name: string): string {
    const [only, ...others] = sources;
    const isAbsolute = /^(?:[/\\]|[A-Za-z]:)/.test(name);
    return isAbsolute || options.root === undefined || only === undefined || others.length > 0
      ? name
      : `${only.replace(/[/\\]$/, "")}/${name}`;
  }

  function addLine(attributes: XmlAttributes): void {
    const line = Number(attributes["number"]);
    const count = Number(attributes["hits"]);
    if (file === undefined || !Number.isInteger(line) || line < 1 || Number.isNaN(count)) {
      sink.warning("a line without `number` and `hits` was left out", place());
      return;
    }
    if (method !== undefined && count > 0) {
      file.functions.set(method, true);
    }
    if (file.hits.size >= MAX_COVERED_LINES && !file.hits.has(line)) {
      return;
    }
    file.hits.set(line, Math.max(file.hits.get(line) ?? 0, count));
    const [, covered, total] = /\((\d{1,6})\/(\d{1,6})\)/.exec(attributes["condition-coverage"] ?? "") ?? [];
    if (total !== undefined) {
      const before = file.branches.get(line)?.[1] ?? 0;
      file.branches.set(line, [Number(total), Math.min(Number(total), Math.max(before, Number(covered)))]);
    }
  }

  return {
    open(element, attributes) {
      if (depth === 0 && element !== "coverage") {
        sink.error(
          `this is not Cobertura's XML: it begins with <${element.slice(0, 100)}> instead of <coverage>`,
          place(),
        );
      }
      depth++;
      switch (element) {
        case "source":
          source = "";
          break;
        case "class":
          openClass(attributes);
          break;
        case "method":
          method = `${className}\n${attributes["name"] ?? ""}${attributes["signature"] ?? ""}`;
          if (file !== undefined && file.functions.size < MAX_COVERED_LINES && !file.functions.has(method)) {
            file.functions.set(method, false);
          }
          break;
        case "line":
          addLine(attributes);
      }
    },
    text(text) {
      if (source !== undefined) {
        source += text.slice(0, 4096);
      }
    },
    close(element) {
      depth--;
      switch (element) {
        case "source":
          if (source?.trim() && sources.length < 1000) {
            sources.push(source.trim());
          }
          source = undefined;
          break;
        case "method":
          method = undefined;
          break;
        case "classes":
        case "coverage":
          flush();
      }
    },
    context: () =>
      file === undefined ? "" : `inside of the file "${file.name.slice(0, 200)}", which was left out`,
  };
}
