import type { Argument, Command, Option } from "commander";

/** Something that may come next on the command line. */
export interface Candidate {
  readonly value: string;
  readonly description: string;
}

/** What only the server knows and a word is completed from. */
export type Dynamic =
  | "service"
  | "tool"
  | "tool arguments"
  | "key"
  | "breaker"
  | "cache"
  | "test run"
  | "test project"
  | "run"
  | "workflow"
  | "agent";

/** What may come next: what is known here, and what the server has to be asked for. */
export interface Completion {
  readonly candidates: readonly Candidate[];
  readonly dynamic: Dynamic | undefined;
  /** The positional arguments before the word. */
  readonly operands: readonly string[];
  /** The unfinished word. */
  readonly prefix: string;
}

/** Arguments of commands that the server completes, by name. */
const DYNAMIC_ARGUMENTS: Readonly<Record<string, Dynamic>> = {
  service: "service",
  tool: "tool",
  arguments: "tool arguments",
  key: "key",
  breaker: "breaker",
  cache: "cache",
  run: "test run",
  base: "test run",
  head: "test run",
  project: "test project",
  "run-id": "run",
  workflow: "workflow",
  agent: "agent",
};

/** Options whose values the server completes. */
const DYNAMIC_OPTIONS: Readonly<Record<string, Dynamic>> = {
  "--service": "service",
  "--tool": "tool",
  "--project": "test project",
  "--failed-in": "test run",
  "--run": "test run",
  "--parent": "run",
};

/** Finds out what may come next after `words`, of which the last one is unfinished. */
export function complete(root: Command, words: readonly string[]): Completion {
  const prefix = words.at(-1) ?? "";
  const { command, operands, pending } = walk(root, words.slice(0, -1));
  if (pending !== undefined) {
    const dynamic = DYNAMIC_OPTIONS[pending.long ?? ""];
    return { candidates: matching(choicesOf(pending), prefix), dynamic, operands, prefix };
  }
  if (prefix.startsWith("-")) {
    return { candidates: matching(optionsOf(command), prefix), dynamic: undefined, operands, prefix };
  }
  const argument = argumentAt(command, operands.length);
  const subcommands = operands.length === 0 ? commandsOf(command) : [];
  return {
    candidates: matching([...subcommands, ...choicesOf(argument)], prefix),
    dynamic: argument === undefined ? undefined : DYNAMIC_ARGUMENTS[argument.name()],
    operands,
    prefix,
  };
}

/** Follows the words to the command they reach, and to the option that still lacks its value. */
function walk(
  root: Command,
  words: readonly string[],
): { command: Command; operands: string[]; pending: Option | undefined } {
  let command = root;
  let operands: string[] = [];
  let pending: Option | undefined;
  for (const word of words) {
    if (pending !== undefined) {
      pending = undefined;
      continue;
    }
    if (word.startsWith("-")) {
      const option = allOptions(command).find(({ long, short }) => word === long || word === short);
      if (option?.required === true) pending = option;
      continue;
    }
    const next = operands.length === 0 ? find(command, word) : undefined;
    if (next === undefined) operands.push(word);
    else {
      command = next;
      operands = [];
    }
  }
  return { command, operands, pending };
}

function find(command: Command, name: string): Command | undefined {
  return command.commands.find((each) => each.name() === name || each.aliases().includes(name));
}

function allOptions(command: Command): Option[] {
  return [...command.options, ...(command.parent === null ? [] : allOptions(command.parent))];
}

function commandsOf(command: Command): Candidate[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .map((each) => ({ value: each.name(), description: firstLine(each.summary() || each.description()) }));
}

function optionsOf(command: Command): Candidate[] {
  return [
    ...allOptions(command)
      .filter(({ hidden }) => !hidden)
      .map(({ long, short, description }) => ({ value: long ?? short ?? "", description })),
    { value: "--help", description: "explain the command, with examples" },
  ];
}

/** The argument at a position; the last one may take any number of words. */
function argumentAt(command: Command, position: number): Argument | undefined {
  const declared = command.registeredArguments;
  const last = declared.at(-1);
  return declared[position] ?? (last?.variadic === true ? last : undefined);
}

function matching(candidates: readonly Candidate[], prefix: string): Candidate[] {
  return candidates.filter(({ value }) => value.startsWith(prefix));
}

function choicesOf(taker: Pick<Argument | Option, "argChoices"> | undefined): Candidate[] {
  return (taker?.argChoices ?? []).map((value) => ({ value, description: "" }));
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0] ?? "";
}
