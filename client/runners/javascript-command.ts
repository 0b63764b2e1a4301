import { basename } from "node:path";
import { RunnerError } from "./runner.ts";

/** What starts other tools: the words between it and the tool are its own. */
const LAUNCHERS =
  /^(?:npx|npm|pnpm|pnpx|yarn|bun|bunx|node|nodejs|corepack|env|cross-env|dotenv|c8|nyc)(?:\.cmd|\.exe)?$/;

/** Runs a script of package.json, which starts the tool: what is said after it reaches the tool. */
const SCRIPT_RUNNERS = /^(?:npm|pnpm|yarn|bun)(?:\.cmd|\.exe)?$/;

/** The last part of a path, without what Windows adds to commands. */
export function toolName(word: string): string {
  return basename(word.replaceAll("\\", "/")).replace(/\.(?:cmd|exe|ps1|mjs|cjs|js)$/, "");
}

/** The place of a tool in a command line such as `npx vitest run`; -1 where it is not started directly. */
export function toolIndex(command: readonly string[], tool: string): number {
  const index = command.findIndex((word) => toolName(word) === tool);
  if (index <= 0) {
    return index;
  }
  return LAUNCHERS.test(basename((command[0] ?? "").replaceAll("\\", "/"))) ? index : -1;
}

/**
 * Where arguments for a tool go: after the command, or where a script starts it, after what makes npm hand them on.
 * Throws when the command does not start the tool as far as one can see.
 */
export function withArguments(
  command: readonly string[],
  tool: string,
  example: string,
  added: readonly string[],
): string[] {
  const launcher = basename((command[0] ?? "").replaceAll("\\", "/"));
  if (toolIndex(command, tool) === -1) {
    if (!SCRIPT_RUNNERS.test(launcher) || command.length < 2) {
      throw new RunnerError(
        "command",
        `not a command that starts ${tool}, such as "${example}" or "npm test": ${command.join(" ")}`,
      );
    }
  }
  const needsSeparator = /^npm(?:\.cmd)?$/.test(launcher) && !command.includes("--");
  return [...command, ...(needsSeparator ? ["--"] : []), ...added];
}

/** Whether the user gave an option, in any of its spellings. */
export function hasOption(command: readonly string[], ...names: readonly string[]): boolean {
  return command.some((word) => names.some((name) => word === name || word.startsWith(`${name}=`)));
}
