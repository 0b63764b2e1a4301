import type { Command } from "commander";
import { addSourceOptions, type SourceOptions } from "./registration.ts";
import { examples, type Run } from "./run.ts";

export function addDiscoverCommand(program: Command, run: Run): void {
  addSourceOptions(
    program
      .command("discover")
      .summary("show the tools that a server offers")
      .description(
        "Shows the tools that a server offers, without keeping it: it is registered for a moment and removed again.\n" +
          "An address with a path is taken for a UTCP manual, any other for a server with gRPC reflection.",
      )
      .argument("<url>", "host:port, http://host:port, or the address of a UTCP manual"),
  )
    .addHelpText(
      "after",
      examples(
        "toolplane discover 127.0.0.1:50051",
        "toolplane discover https://petstore.example.com/utcp",
        "toolplane discover 127.0.0.1:8080 --protocol connect --json",
      ),
    )
    .action(
      run(async (context, url: string, options: SourceOptions) =>
        (await import("../actions/discover.ts")).discover(context, url, options),
      ),
    );
}
