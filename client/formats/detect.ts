import { ReportFormat } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { createReportDecoder } from "./text/decoder.ts";

/** So many first bytes are enough to find out the format. */
export const DETECTION_BYTES = 4096;

/**
 * Finds out the format by the beginning of the content, and where that does not tell by the file name. UNSPECIFIED: by
 * neither.
 */
export function detectFormat(firstBytes: Uint8Array, fileName = ""): ReportFormat {
  const text = createReportDecoder(firstBytes, () => {})
    .decode(firstBytes.subarray(0, DETECTION_BYTES))
    .trimStart();
  return byContent(text) ?? byName(fileName.toLowerCase()) ?? byShape(text);
}

function byContent(text: string): ReportFormat | undefined {
  if (text.startsWith("<")) {
    const root = /<(?!\?|!)(?:[\w.-]+:)?([\w.-]+)/.exec(text.replace(/<!--.*?-->/gs, ""))?.[1];
    switch (root) {
      case "coverage":
        return ReportFormat.COBERTURA;
      case "testsuites":
      case "testsuite":
        return ReportFormat.JUNIT_XML;
      default:
        return undefined;
    }
  }
  if (text.startsWith("{")) {
    return byJson(text);
  }
  if (/^mode: (?:set|count|atomic)\b/.test(text)) {
    return ReportFormat.GO_COVER;
  }
  return /^(?:TN:|SF:)/m.test(text) ? ReportFormat.LCOV : undefined;
}

function byJson(text: string): ReportFormat | undefined {
  const firstLine = text.split("\n", 1)[0] ?? "";
  if (/"Action"\s*:\s*"/.test(firstLine)) {
    return ReportFormat.GO_TEST_JSON;
  }
  if (/"reportFormat"\s*:\s*"CTRF"|"results"\s*:\s*\{/.test(text)) {
    return ReportFormat.CTRF;
  }
  return /"statementMap"\s*:/.test(text) ? ReportFormat.ISTANBUL_JSON : undefined;
}

function byName(name: string): ReportFormat | undefined {
  if (/\.info$/.test(name)) {
    return ReportFormat.LCOV;
  }
  if (/cobertura[^/\\]*\.xml$/.test(name)) {
    return ReportFormat.COBERTURA;
  }
  if (/\.xml$/.test(name)) {
    return ReportFormat.JUNIT_XML;
  }
  if (/coverage[^/\\]*\.json$/.test(name)) {
    return ReportFormat.ISTANBUL_JSON;
  }
  return /ctrf[^/\\]*\.json$/.test(name) ? ReportFormat.CTRF : undefined;
}

/** The usual format of what looks like this. */
function byShape(text: string): ReportFormat {
  if (text.startsWith("<")) {
    return ReportFormat.JUNIT_XML;
  }
  return text.startsWith("{") ? ReportFormat.CTRF : ReportFormat.UNSPECIFIED;
}
