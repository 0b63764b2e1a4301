import type { Command } from "commander";
import { examples, type Run } from "./run.ts";

export function addRuntimeCommand(program: Command, run: Run): void {
  program
    .command("runtime")
    .summary("show how the server's process fares")
    .description("Shows event loop, memory, streams and writers of the server that answers.")
    .addHelpText(
      "after",
      examples("toolplane runtime", "toolplane runtime --json | jq '.memory.leakSuspects'"),
    )
    .action(run(async (context) => (await import("../actions/runtime.ts")).runtime(context)));
}
