import type { Command } from "commander";
import { examples, type Run } from "./run.ts";

export interface LimitsOptions {
  readonly limit: string;
}

export function addLimitsCommand(program: Command, run: Run): void {
  program
    .command("limits")
    .summary("show limits and what is left of them")
    .description("Shows the limits of the server that answers and what is left of them, tightest first.")
    .argument("[level]", "only this level: global, service, caller, method, concurrency or tool")
    .option("--limit <n>", "show at most so many keys of one level, up to 1000", "20")
    .addHelpText(
      "after",
      examples(
        "toolplane limits",
        "toolplane limits caller --limit 100",
        "toolplane limits --json | jq '.limits[] | select(.refused != \"0\")'",
      ),
    )
    .action(
      run(async (context, level: string | undefined, options: LimitsOptions) =>
        (await import("../actions/limits.ts")).limits(context, level, options),
      ),
    );
}
