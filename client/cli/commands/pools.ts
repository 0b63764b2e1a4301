import type { Command } from "commander";
import { examples, type Run } from "./run.ts";

export function addPoolsCommand(program: Command, run: Run): void {
  program
    .command("pools")
    .alias("pool")
    .summary("show connections to services")
    .description(
      "Shows the connections to services, how often they were used again, and why they were closed.",
    )
    .argument("[origin]", "only connections there, such as http://127.0.0.1:9000")
    .addHelpText("after", examples("toolplane pools", "toolplane pools http://127.0.0.1:9000 --json"))
    .action(
      run(async (context, origin: string | undefined) =>
        (await import("../actions/pools.ts")).pools(context, origin),
      ),
    );
}
