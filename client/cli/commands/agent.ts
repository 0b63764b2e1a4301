import type { Command } from "commander";
import { addStartOptions, type StartOptions } from "./follow-options.ts";
import { examples, type Run } from "./run.ts";

export interface PutAgentOptions {
  readonly etag?: string;
}

export interface RunAgentOptions extends StartOptions {
  readonly version?: string;
  readonly tasks?: string;
  readonly concurrency?: string;
}

export function addAgentCommands(program: Command, run: Run): void {
  const agent = program
    .command("agent")
    .alias("agents")
    .summary("keep agents and give them tasks")
    .description(
      "Keeps agents, which are models with a purpose, and gives them tasks. Without a verb: lists them.",
    )
    .addHelpText(
      "after",
      examples(
        "toolplane agent put reviewer.yaml",
        'toolplane agent run reviewer "Review the last change"',
        "toolplane agent run translator --tasks @sentences.txt",
      ),
    );

  agent
    .command("list", { isDefault: true })
    .summary("list agents")
    .description("Lists agents: the newest version of each, or the versions of one.")
    .argument("[agent]", "list the versions of this agent")
    .option("--limit <n>", "list at most so many; 0 means all", "100")
    .addHelpText("after", examples("toolplane agent", "toolplane agent list reviewer"))
    .action(
      run(async (context, name: string | undefined, options: { readonly limit: string }) =>
        (await import("../actions/orchestration/agents.ts")).listAgents(context, name, options),
      ),
    );

  agent
    .command("show")
    .summary("show an agent")
    .description("Shows an agent: its prompt, model, tools and limits.")
    .argument("<agent>", "the agent")
    .option("--version <n>", "the version (the newest)")
    .addHelpText("after", examples("toolplane agent show reviewer", "toolplane agent show reviewer --json"))
    .action(
      run(async (context, name: string, options: { readonly version?: string }) =>
        (await import("../actions/orchestration/agents.ts")).showAgent(context, name, options),
      ),
    );

  agent
    .command("put")
    .alias("apply")
    .summary("keep an agent")
    .description(
      "Keeps an agent under its name, as its next version; one that is what it was makes none. The file has the fields of\n" +
        "toolplane.orchestration.v1.Agent: name, description, prompt, model, tools, budget, timeout, attempts.",
    )
    .argument("<file>", "the agent as YAML or JSON; - reads stdin")
    .option("--etag <etag>", "only when this is still the etag of the present version")
    .addHelpText("after", examples("toolplane agent put reviewer.yaml", "toolplane agent put - < agent.json"))
    .action(
      run(async (context, file: string, options: PutAgentOptions) =>
        (await import("../actions/orchestration/agents.ts")).putAgent(context, file, options),
      ),
    );

  agent
    .command("delete")
    .summary("forget an agent")
    .description("Forgets an agent with all its versions. Runs that use it go on.")
    .argument("<agent>", "the agent")
    .addHelpText("after", examples("toolplane agent delete reviewer"))
    .action(
      run(async (context, name: string) =>
        (await import("../actions/orchestration/agents.ts")).deleteAgent(context, name),
      ),
    );

  addStartOptions(
    agent
      .command("run")
      .summary("give tasks to an agent")
      .description(
        "Gives one or many tasks to an agent, side by side, and shows them live. Ctrl-C leaves the run to itself; --timeout " +
          "bounds the run. Exit codes: 0 all succeeded, 1 a task failed, 9 it was cancelled.",
      )
      .argument("<agent>", "the agent")
      .argument("[task...]", "the tasks, one a word: quote them")
      .option("--tasks <@file>", "further tasks, one a line; - reads stdin")
      .option("--version <n>", "the agent's version (the newest)")
      .option("--concurrency <n>", "how many tasks may run at once (10)"),
  )
    .addHelpText(
      "after",
      examples(
        'toolplane agent run reviewer "Review the last change"',
        'toolplane agent run translator "Guten Tag" "Auf Wiedersehen"',
        "toolplane agent run translator --tasks @sentences.txt --output json | jq -r '.[].text'",
      ),
    )
    .action(
      run(async (context, name: string, tasks: string[], options: RunAgentOptions) =>
        (await import("../actions/orchestration/run-agent.ts")).runAgent(context, name, tasks, options),
      ),
    );
}
