import type { Colors } from "picocolors/types.js";
import { oneLine, textWidth } from "./text-width.ts";

/** Names and values below each other. Empty values are left out. */
export function renderFacts(
  paint: Colors,
  facts: readonly (readonly [name: string, value: string])[],
): string {
  const shown = facts.filter(([, value]) => value !== "");
  const width = Math.max(0, ...shown.map(([name]) => textWidth(name)));
  return shown
    .map(([name, value]) => `  ${paint.dim(name)}${" ".repeat(width - textWidth(name))}  ${oneLine(value)}`)
    .join("\n");
}

/** A part of a longer text under its own title. */
export function section(paint: Colors, title: string, body: string): string[] {
  return ["", paint.bold(title), body];
}
