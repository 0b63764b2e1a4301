import type { Command } from "commander";
import type { Context } from "../context.ts";

/** What a command does, with its arguments and then its options. Returns the exit code where it is not 0. */
export type Action<Args extends readonly unknown[]> = (
  context: Context,
  ...args: Args
) => Promise<number | undefined>;

/**
 * Makes an action fit for commander. Commands only describe themselves; what they do is imported when one is run, so that
 * the command line starts fast.
 */
export type Run = <Args extends readonly unknown[]>(
  action: Action<Args>,
) => (this: Command, ...args: unknown[]) => Promise<void>;

/** Examples below a command's help. */
export function examples(...lines: string[]): string {
  return ["", "Examples:", ...lines.map((line) => `  $ ${line}`)].join("\n");
}
