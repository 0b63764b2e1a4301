import type { JsonValue } from "@bufbuild/protobuf";
import { ScanError, split } from "./scan.ts";

/** How much there is to parse: expressions, and characters in them. */
export interface Weight {
  readonly count: number;
  readonly length: number;
}

/** Weighs the expressions of a template without parsing them, which takes a hundred times as long. */
export function weighTemplate(json: JsonValue): Weight {
  let count = 0;
  let length = 0;
  const open: JsonValue[] = [json];
  for (let value = open.pop(); value !== undefined; value = open.pop()) {
    if (typeof value === "string") {
      for (const piece of pieces(value)) {
        if (piece.kind === "text") continue;
        count++;
        length += piece.source.length;
      }
    } else if (typeof value === "object" && value !== null) {
      for (const each of Object.values(value)) open.push(each);
    }
  }
  return { count, length };
}

/** Of a text that cannot be split, nothing: no more of it will be parsed than where it is wrong. */
function pieces(text: string): ReturnType<typeof split> {
  if (!text.includes("${")) return [];
  try {
    return split(text);
  } catch (error) {
    if (error instanceof ScanError) return [];
    throw error;
  }
}
