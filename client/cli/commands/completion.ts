import { Argument, type Command } from "commander";
import { examples, type Run } from "./run.ts";

/** The hidden command that shells ask for what may come next. */
export const COMPLETE_COMMAND = "__complete";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

export function addCompletionCommands(program: Command, run: Run): void {
  program
    .command("completion")
    .summary("print a script that completes commands")
    .description("Prints a script that completes commands, options, and the names of services and tools.")
    .addArgument(new Argument("<shell>", "which shell").choices(SHELLS))
    .addHelpText(
      "after",
      examples(
        "source <(toolplane completion bash)",
        "toolplane completion zsh > ~/.zfunc/_toolplane",
        "toolplane completion fish > ~/.config/fish/completions/toolplane.fish",
      ),
    )
    .action(
      run(async (context, shell: Shell) =>
        (await import("../actions/completion.ts")).printCompletionScript(context, shell),
      ),
    );

  program
    .command(COMPLETE_COMMAND, { hidden: true })
    .description("Prints what may come next on a command line.")
    .argument("[words...]", "the words after `toolplane`, the last one unfinished")
    .allowUnknownOption()
    .helpOption(false)
    .action(
      run(async (context, words: string[]) =>
        (await import("../actions/completion.ts")).printCandidates(context, words),
      ),
    );
}
