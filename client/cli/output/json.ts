import type { JsonValue } from "@bufbuild/protobuf";
import type { Colors } from "picocolors/types.js";

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|(\btrue\b|\bfalse\b|\bnull\b)|(-?\d[\d.eE+-]*)/g;

/** JSON as text: for programs on one line, for people indented and coloured. */
export function formatJson(value: JsonValue, style: { indent?: boolean; paint?: Colors } = {}): string {
  const { indent = false, paint } = style;
  const text = escapeC1(JSON.stringify(value, undefined, indent ? 2 : 0));
  if (paint?.isColorSupported !== true) return text;
  return text.replaceAll(TOKEN, (match, string?: string, colon?: string, word?: string) => {
    if (string !== undefined) return colon === undefined ? paint.green(string) : paint.blue(string) + colon;
    return word === undefined ? paint.yellow(match) : paint.magenta(match);
  });
}

/** JSON leaves U+007F to U+009F as they are, but some terminals take them as commands. */
function escapeC1(json: string): string {
  return json.replaceAll(
    /[\u007f-\u009f]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
