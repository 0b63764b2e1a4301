import type { Command } from "commander";
import { collect } from "../input/pairs.ts";
import { examples, type Run } from "./run.ts";

/** The options that say which tools are meant. */
export interface ToolFilterOptions {
  readonly service?: string;
  readonly environment?: string;
  readonly version?: string;
  readonly tag?: readonly string[];
  readonly limit: string;
}

export interface ShowToolOptions {
  readonly environment?: string;
  readonly version?: string;
  readonly schema?: boolean;
}

export function addToolsCommands(program: Command, run: Run): void {
  const tools = program
    .command("tools")
    .alias("tool")
    .summary("list, search and show tools")
    .description("Lists, searches and shows the tools that services offer. Without a verb: lists them.")
    .addHelpText("after", examples("toolplane tools", "toolplane tools search forecast"));

  addToolFilter(
    tools
      .command("list", { isDefault: true })
      .description("Lists tools by name.")
      .argument("[service]", "only of this service"),
  )
    .option("--limit <n>", "list at most so many; 0 means all", "100")
    .addHelpText(
      "after",
      examples(
        "toolplane tools",
        "toolplane tools list weather",
        "toolplane tools list --tag billing --limit 0",
        "toolplane tools list --json | jq -r '.tools[].name'",
      ),
    )
    .action(
      run(async (context, service: string | undefined, options: ToolFilterOptions) =>
        (await import("../actions/tools.ts")).listTools(context, service, options),
      ),
    );

  addToolFilter(
    tools
      .command("search")
      .description("Finds tools by words in their names, descriptions, tags and argument names; best first.")
      .argument("<words...>", "what to look for")
      .option("--service <name>", "only of this service"),
  )
    .option("--limit <n>", "find at most so many, up to 100", "10")
    .addHelpText(
      "after",
      examples("toolplane tools search forecast", "toolplane tools search convert currency --tag finance"),
    )
    .action(
      run(async (context, words: string[], options: ToolFilterOptions) =>
        (await import("../actions/tools.ts")).searchTools(context, words, options),
      ),
    );

  tools
    .command("show")
    .description("Shows what a tool does, the arguments it takes, what it returns, and a call to copy.")
    .argument("<tool>", "the tool's name, or the short name that lists show")
    .option("--environment <name>", "the service's environment (default)")
    .option("--version <version>", "the service's version (the highest)")
    .option("--schema", "print the JSON Schemas of arguments and result instead")
    .addHelpText(
      "after",
      examples(
        "toolplane tools show weather.GetForecast",
        "toolplane tools show weather.GetForecast --schema",
      ),
    )
    .action(
      run(async (context, name: string, options: ShowToolOptions) =>
        (await import("../actions/show-tool.ts")).showTool(context, name, options),
      ),
    );
}

function addToolFilter(command: Command): Command {
  return command
    .option("--environment <name>", "only in this environment")
    .option("--version <version>", "only of this version of a service (the highest)")
    .option("--tag <tag>", "only with this tag; may be repeated, all must be present", collect);
}
