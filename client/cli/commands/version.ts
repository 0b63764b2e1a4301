import type { Command } from "commander";
import { examples, type Run } from "./run.ts";

export interface VersionOptions {
  readonly client?: boolean;
}

export function addVersionCommand(program: Command, run: Run): void {
  program
    .command("version")
    .summary("show the versions of command and server")
    .description(
      "Shows the versions of this command and of the server. Exits with 4 when the server does not answer.",
    )
    .option("--client", "show only the version of this command")
    .addHelpText("after", examples("toolplane version", "toolplane version --client --json"))
    .action(
      run(async (context, options: VersionOptions) =>
        (await import("../actions/version.ts")).version(context, options),
      ),
    );
}
