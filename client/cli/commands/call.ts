import type { Command } from "commander";
import { examples, type Run } from "./run.ts";

export interface CallOptions {
  readonly environment?: string;
  readonly version?: string;
  /** `true` asks for a fresh id. */
  readonly requestId?: string | true;
  readonly raw?: boolean;
}

export function addCallCommand(program: Command, run: Run): void {
  program
    .command("call")
    .summary("call a tool")
    .description(
      "Calls a tool and prints its result; results of a tool that streams are printed as they come.\n" +
        "Arguments are JSON, @file, - for stdin, or pairs: key=text, key:=json, key=@file, key:=@file.json,\n" +
        "with dots for nested fields. A tool that takes a stream reads one JSON document a line.",
    )
    .argument("<tool>", "the tool's name, or the short name that lists show")
    .argument("[arguments...]", "what to call it with")
    .option("--environment <name>", "the service's environment (default)")
    .option("--version <version>", "the service's version (the highest)")
    .option("--request-id [uuid]", "make the call safe to repeat; without a value, under a fresh id")
    .option("--raw", "print only results: JSON on one line each, text without quotes")
    .addHelpText(
      "after",
      examples(
        "toolplane call weather.GetForecast city=Berlin days:=3",
        `toolplane call weather.GetForecast '{"city": "Berlin", "days": 3}'`,
        "toolplane call weather.GetForecast @request.json --timeout 5s",
        "toolplane call weather.GetForecast place.lat:=52.5 place.lon:=13.4 --json | jq .result",
        "cat readings.ndjson | toolplane call weather.Record -",
      ),
    )
    .action(
      run(async (context, tool: string, args: string[], options: CallOptions) =>
        (await import("../actions/call.ts")).call(context, tool, args, options),
      ),
    );
}
