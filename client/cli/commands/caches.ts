import type { Command } from "commander";
import { examples, type Run } from "./run.ts";

export interface PurgeCacheOptions {
  readonly tool?: string;
}

export function addCachesCommands(program: Command, run: Run): void {
  const caches = program
    .command("caches")
    .alias("cache")
    .summary("list and purge caches")
    .description("Lists caches with what they have saved, and purges them. Without a verb: lists them.")
    .addHelpText("after", examples("toolplane caches", "toolplane caches purge --tool weather.GetForecast"));

  caches
    .command("list", { isDefault: true })
    .description("Lists caches, and what identical calls have shared.")
    .addHelpText("after", examples("toolplane caches", "toolplane caches --json | jq '.caches[].hitRate'"))
    .action(run(async (context) => (await import("../actions/caches.ts")).listCaches(context)));

  caches
    .command("purge")
    .description("Drops kept answers, on every replica.")
    .argument("[cache]", "only of this cache")
    .option("--tool <tool>", "only answers of this tool")
    .addHelpText(
      "after",
      examples("toolplane caches purge", "toolplane caches purge --tool weather.GetForecast"),
    )
    .action(
      run(async (context, cache: string | undefined, options: PurgeCacheOptions) =>
        (await import("../actions/caches.ts")).purgeCache(context, cache, options),
      ),
    );
}
