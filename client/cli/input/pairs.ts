import { UsageError } from "../usage-error.ts";

/** Splits `key=value` at the first `=`. */
export function parsePair(text: string, option: string): [key: string, value: string] {
  const at = text.indexOf("=");
  if (at <= 0) throw new UsageError(`${option}: "${text}" is not written as key=value`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** For commander: gathers the values of an option that may be given several times. */
export function collect(value: string, earlier: readonly string[] | undefined): string[] {
  return [...(earlier ?? []), value];
}
