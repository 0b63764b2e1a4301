import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { isShallow } from "../../schema/json.ts";
import { MAX_DEPTH } from "./tool-results.ts";

/** The output of a step whose work is a model's: `text`, and `json` where the text is JSON or has one block of it. */
export function answerOutput(text: string): JsonObject {
  const json = parseBounded(fencedJson(text) ?? text, MAX_DEPTH);
  return json === undefined ? { text } : { text, json };
}

/** What the only fence of Markdown that says that it holds JSON holds; also that of a fence that is all there is. */
function fencedJson(text: string): string | undefined {
  const lines = text.trim().split(/\r?\n/);
  const starts = lines.flatMap((line, index) => (/^ {0,3}```json$/i.test(line.trimEnd()) ? [index] : []));
  const isWhole = lines[0]?.trimEnd() === "```";
  const [start = isWhole ? 0 : undefined] = starts;
  if (start === undefined || starts.length > 1) {
    return undefined;
  }
  const end = lines.findIndex((line, index) => index > start && line.trim() === "```");
  return end > start && (starts.length === 1 || end === lines.length - 1)
    ? lines.slice(start + 1, end).join("\n")
    : undefined;
}

/** Undefined: it is no JSON, nests deeper, or has a number that is too large for one. */
export function parseBounded(text: string, maxDepth: number): JsonValue | undefined {
  try {
    const json: JsonValue = JSON.parse(text);
    return isShallow(json, maxDepth) && isFiniteThroughout(json) ? json : undefined;
  } catch {
    return undefined;
  }
}

/** `1e999` parses, and is no number that JSON has. */
function isFiniteThroughout(json: JsonValue): boolean {
  if (typeof json === "object" && json !== null) {
    return Object.values(json).every(isFiniteThroughout);
  }
  return typeof json !== "number" || Number.isFinite(json);
}
