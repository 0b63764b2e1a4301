import { type Command, Option } from "commander";
import { collect } from "../input/pairs.ts";
import { addStartOptions, type StartOptions } from "./follow-options.ts";
import { examples, type Run } from "./run.ts";

export interface PutWorkflowOptions {
  readonly etag?: string;
  readonly allowUnknownTools?: boolean;
}

export interface ShowWorkflowOptions {
  readonly version?: string;
  readonly yaml?: boolean;
}

export const GRAPH_FORMATS = ["text", "mermaid", "svg"] as const;
export type GraphFormat = (typeof GRAPH_FORMATS)[number];

export interface WorkflowGraphOptions {
  readonly version?: string;
  readonly format?: GraphFormat;
  readonly output?: string;
}

export interface RunWorkflowOptions extends StartOptions {
  readonly version?: string;
  readonly input?: readonly string[];
}

const FILE = "the workflow as YAML or JSON; - reads stdin";
const NAME_OR_FILE = "a workflow that is kept, or a file (./nightly.yaml; - reads stdin)";

export function addWorkflowCommands(program: Command, run: Run): void {
  const workflow = program
    .command("workflow")
    .alias("workflows")
    .summary("check, keep, draw and run workflows")
    .description(
      "Checks, keeps, draws and runs workflows: graphs of steps, written as YAML or JSON. Without a verb: lists them.",
    )
    .addHelpText(
      "after",
      examples(
        "toolplane workflow validate nightly.yaml",
        "toolplane workflow put nightly.yaml",
        "toolplane workflow run nightly city=Berlin",
        "toolplane workflow graph nightly --format svg -o nightly.svg",
      ),
    );

  workflow
    .command("list", { isDefault: true })
    .summary("list workflows")
    .description("Lists workflows: the newest version of each.")
    .option("--limit <n>", "list at most so many; 0 means all", "100")
    .addHelpText(
      "after",
      examples("toolplane workflow", "toolplane workflow list --json | jq -r '.workflows[].name'"),
    )
    .action(
      run(async (context, options: { readonly limit: string }) =>
        (await import("../actions/orchestration/workflows.ts")).listWorkflows(context, options),
      ),
    );

  workflow
    .command("validate")
    .alias("check")
    .summary("say what is wrong with a workflow")
    .description(
      "Says all that is wrong with a workflow, one problem a line as file:line:column, and shows its steps. " +
        "Exit codes: 0 it can be run, 5 it cannot.",
    )
    .argument("<file>", FILE)
    .addHelpText(
      "after",
      examples(
        "toolplane workflow validate nightly.yaml",
        "toolplane workflow validate nightly.yaml --json | jq '.problems[].reason'",
      ),
    )
    .action(
      run(async (context, file: string) =>
        (await import("../actions/orchestration/put-workflow.ts")).validateWorkflow(context, file),
      ),
    );

  workflow
    .command("put")
    .alias("apply")
    .summary("keep a workflow")
    .description(
      "Keeps a workflow under its name, as its next version; one that is what it was makes none. Shows what is suspicious, " +
        "and when its schedules start it.",
    )
    .argument("<file>", FILE)
    .option("--etag <etag>", "only when this is still the etag of the present version")
    .option("--allow-unknown-tools", "keep it although tools that it names are not registered yet")
    .addHelpText(
      "after",
      examples("toolplane workflow put nightly.yaml", "cat nightly.yaml | toolplane workflow apply -"),
    )
    .action(
      run(async (context, file: string, options: PutWorkflowOptions) =>
        (await import("../actions/orchestration/put-workflow.ts")).putWorkflow(context, file, options),
      ),
    );

  workflow
    .command("show")
    .summary("show a workflow")
    .description("Shows a workflow: its steps, input, schedules and labels.")
    .argument("<workflow>", "the workflow")
    .option("--version <n>", "the version (the newest)")
    .option("--yaml", "print it as YAML that can be put again")
    .addHelpText(
      "after",
      examples("toolplane workflow show nightly", "toolplane workflow show nightly --version 2 --yaml"),
    )
    .action(
      run(async (context, name: string, options: ShowWorkflowOptions) =>
        (await import("../actions/orchestration/workflows.ts")).showWorkflow(context, name, options),
      ),
    );

  workflow
    .command("versions")
    .summary("list the versions of a workflow")
    .description("Lists the versions of a workflow, the newest first.")
    .argument("<workflow>", "the workflow")
    .option("--limit <n>", "list at most so many; 0 means all", "100")
    .addHelpText("after", examples("toolplane workflow versions nightly"))
    .action(
      run(async (context, name: string, options: { readonly limit: string }) =>
        (await import("../actions/orchestration/workflows.ts")).listWorkflows(context, { ...options, name }),
      ),
    );

  workflow
    .command("delete")
    .summary("forget a workflow")
    .description(
      "Forgets a workflow with all its versions and schedules. Its runs stay, and running ones go on.",
    )
    .argument("<workflow>", "the workflow")
    .addHelpText("after", examples("toolplane workflow delete nightly"))
    .action(
      run(async (context, name: string) =>
        (await import("../actions/orchestration/workflows.ts")).deleteWorkflow(context, name),
      ),
    );

  workflow
    .command("graph")
    .summary("draw a workflow")
    .description("Draws what comes after what: as text for a terminal, as Mermaid, or as a picture.")
    .argument("<workflow>", NAME_OR_FILE)
    .option("--version <n>", "the version (the newest)")
    .addOption(new Option("--format <format>", "how to draw it (text)").choices(GRAPH_FORMATS))
    .option("-o, --output <file>", "write it there; .svg and .mmd choose the format too")
    .addHelpText(
      "after",
      examples(
        "toolplane workflow graph nightly",
        "toolplane workflow graph nightly.yaml --format mermaid",
        "toolplane workflow graph nightly -o nightly.svg",
      ),
    )
    .action(
      run(async (context, name: string, options: WorkflowGraphOptions) =>
        (await import("../actions/orchestration/draw-workflow.ts")).drawWorkflow(context, name, options),
      ),
    );

  addStartOptions(
    workflow
      .command("run")
      .summary("run a workflow and watch it")
      .description(
        "Runs a workflow and shows its steps live. Ctrl-C leaves the run to itself. --timeout bounds the run.\n" +
          "The input is JSON, @file, - for stdin, or pairs as for `toolplane call`: key=text, key:=json.\n" +
          "Exit codes: 0 it succeeded, 1 it failed, 9 it was cancelled.",
      )
      .argument("<workflow>", NAME_OR_FILE)
      .argument("[input...]", "what to run it with")
      .option("--version <n>", "the version (the newest)")
      .option("--input <key=value>", "a field of the input; repeatable", collect),
  )
    .addHelpText(
      "after",
      examples(
        "toolplane workflow run nightly city=Berlin days:=3",
        "toolplane workflow run ./nightly.yaml @input.json --cancel-on-interrupt",
        "toolplane workflow run nightly --output json | jq .report",
        "toolplane run watch $(toolplane workflow run nightly --detach)",
      ),
    )
    .action(
      run(async (context, name: string, input: string[], options: RunWorkflowOptions) =>
        (await import("../actions/orchestration/run-workflow.ts")).runWorkflow(context, name, input, options),
      ),
    );
}
