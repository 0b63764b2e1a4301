import type { Command } from "commander";
import { examples, type Run } from "./run.ts";

export function addMetricsCommand(program: Command, run: Run): void {
  program
    .command("metrics")
    .summary("show every metric")
    .description("Shows the metrics of the server that answers, the same as /metrics.")
    .argument("[prefixes...]", "only metrics whose names begin with one of these")
    .addHelpText(
      "after",
      examples(
        "toolplane metrics",
        "toolplane metrics toolplane_cache toolplane_pool",
        "toolplane metrics toolplane_calls --json",
      ),
    )
    .action(
      run(async (context, prefixes: string[]) =>
        (await import("../actions/metrics.ts")).metrics(context, prefixes),
      ),
    );
}
