import type { Command } from "commander";
import { examples, type Run } from "./run.ts";

export interface StatsOptions {
  readonly watch?: boolean;
  readonly interval: string;
  readonly tools?: boolean;
}

export function addStatsCommand(program: Command, run: Run): void {
  program
    .command("stats")
    .summary("show what goes on: rates, latencies, refusals")
    .description(
      "Shows what went on in an interval: rates, success, latencies, refusals. With --watch: live; q ends it.",
    )
    .option("--watch", "go on until it is interrupted; in a pipe, one line an interval")
    .option("--interval <time>", "the length of an interval, from 250ms to 5m", "2s")
    .option("--tools", "tell tools apart instead of services")
    .addHelpText(
      "after",
      examples(
        "toolplane stats",
        "toolplane stats --tools",
        "toolplane stats --watch",
        "toolplane stats --watch --interval 10s --json | jq .outbound",
      ),
    )
    .action(
      run(async (context, options: StatsOptions) =>
        (await import("../actions/stats.ts")).stats(context, options),
      ),
    );
}
