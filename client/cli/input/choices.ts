import { UsageError } from "../usage-error.ts";

/** Reads an option that counts something, from 1. Undefined stays undefined. */
export function parseCount(text: string | undefined, option: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new UsageError(`${option}: "${text}" is not a whole number from 1`);
  return Number(text);
}

/** The value of an option that chooses one of several words. */
export function parseChoice<T>(text: string, option: string, choices: Readonly<Record<string, T>>): T {
  const value = Object.hasOwn(choices, text) ? choices[text] : undefined;
  if (value !== undefined) return value;
  throw new UsageError(`${option}: "${text}" is not one of ${Object.keys(choices).join(", ")}`);
}
