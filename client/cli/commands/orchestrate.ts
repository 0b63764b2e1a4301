import type { Command } from "commander";
import { collect } from "../input/pairs.ts";
import { addStartOptions, type StartOptions } from "./follow-options.ts";
import { examples, type Run } from "./run.ts";

export interface OrchestrateOptions extends StartOptions {
  readonly model?: string;
  readonly instructions?: string;
  readonly tool?: readonly string[];
  readonly tag?: readonly string[];
  readonly environment?: string;
  /** False: `--no-tools`. */
  readonly tools: boolean;
  readonly maxTurns?: string;
  readonly maxTokens?: string;
  readonly maxCost?: string;
  readonly maxTime?: string;
  readonly maxParallel?: string;
}

export function addOrchestrateCommand(program: Command, run: Run): void {
  addStartOptions(
    program
      .command("orchestrate")
      .summary("have a model do what you say, with tools")
      .description(
        "Gives a requirement in plain words to a model, which chooses among the registered tools and calls them until it is " +
          "done. Shows it live. Ctrl-C leaves the run to itself; --timeout bounds the run.\n" +
          "Exit codes: 0 it succeeded, 1 it failed, 9 it was cancelled.",
      )
      .argument("<words...>", "what is to be done; - reads stdin, @file a file")
      .option("--model <model>", "such as anthropic/claude-sonnet-4-5 (the server's default)")
      .option("--instructions <text>", "what to tell the model besides")
      .option("--tool <name>", "only tools of this name; * stands for any characters; repeatable", collect)
      .option("--tag <tag>", "only tools with one of these tags; repeatable", collect)
      .option("--environment <name>", "the tools' environment (default)")
      .option("--no-tools", "no tools at all")
      .option("--max-turns <n>", "how often the model may be asked (25)")
      .option("--max-tokens <n>", "how many tokens it may read and write (1,000,000)")
      .option("--max-cost <usd>", "what it may cost, in dollars (no limit)")
      .option("--max-time <time>", "how long it may take, such as 5m (10m)")
      .option("--max-parallel <n>", "how many tools one turn may call at once (5)"),
  )
    .addHelpText(
      "after",
      examples(
        'toolplane orchestrate "Compare the weather of Berlin and Rome for the next three days"',
        'toolplane orchestrate "Close stale issues" --tool "issues.*" --max-cost 0.50 --max-time 5m',
        'toolplane orchestrate "Which services are down?" --tag toolplane --output json | jq -r .text',
      ),
    )
    .action(
      run(async (context, words: string[], options: OrchestrateOptions) =>
        (await import("../actions/orchestration/orchestrate.ts")).orchestrate(context, words, options),
      ),
    );
}
