import type { Command } from "commander";
import { collect } from "../input/pairs.ts";
import { examples, type Run } from "./run.ts";

/** The options that say how to learn a service's tools and how to speak to it. */
export interface SourceOptions {
  readonly source?: string;
  readonly utcpUrl?: string;
  readonly manual?: string;
  readonly descriptors?: string;
  readonly only?: readonly string[];
  readonly protocol?: string;
  readonly header?: readonly string[];
}

export interface RegisterOptions extends SourceOptions {
  readonly version?: string;
  readonly environment?: string;
  readonly tag?: readonly string[];
  readonly title?: string;
  readonly description?: string;
  readonly metadata?: readonly string[];
  readonly instance?: string;
  readonly lease?: string;
  readonly health?: string;
  readonly healthInterval?: string;
}

export interface DeregisterOptions {
  readonly instance?: string;
  readonly environment?: string;
  readonly version?: string;
}

export function addRegistrationCommands(program: Command, run: Run): void {
  addSourceOptions(
    program
      .command("register")
      .summary("register a service at an address")
      .description("Registers a service at an address and shows the tools that it offers.")
      .argument("<name>", "a name of your choice; the names of the tools start with it")
      .argument("<address>", "host:port, http://host:port or https://host:port"),
  )
    .option("--version <version>", "the version of the service (0.0.0)")
    .option("--environment <name>", "the environment it runs in (default)")
    .option("--tag <tag>", "a label to find it by; may be repeated", collect)
    .option("--title <text>", "a short name for people")
    .option("--description <text>", "what the service is for")
    .option("--metadata <key=value>", "anything else about it; may be repeated", collect)
    .option("--instance <id>", "the id of this copy (derived from the address)")
    .option("--lease <time>", "forget it unless it is registered again within this time (never)")
    .option("--health <check>", "grpc, grpc:<service>, http:/path, tcp or none (fits the protocol)")
    .option("--health-interval <time>", "time between two checks (60s)")
    .addHelpText(
      "after",
      examples(
        "toolplane register weather 127.0.0.1:50051",
        "toolplane register weather https://weather.example.com --version 1.2.0 --tag demo",
        "toolplane register billing 10.0.0.5:8443 --descriptors billing.binpb --header authorization=@billing-key",
        "toolplane register petstore https://petstore.example.com --utcp-url https://petstore.example.com/utcp",
      ),
    )
    .action(
      run(async (context, name: string, address: string, options: RegisterOptions) =>
        (await import("../actions/register.ts")).register(context, name, address, options),
      ),
    );

  program
    .command("deregister")
    .summary("remove a service or one instance")
    .description("Removes a service with all of its instances, or one instance.")
    .argument("[service]", "the name of the service")
    .option("--instance <id>", "remove only this instance")
    .option("--environment <name>", "the service's environment (default)")
    .option("--version <version>", "the service's version (the highest)")
    .addHelpText(
      "after",
      examples("toolplane deregister weather", "toolplane deregister --instance weather-7f9c"),
    )
    .action(
      run(async (context, service: string | undefined, options: DeregisterOptions) =>
        (await import("../actions/register.ts")).deregister(context, service, options),
      ),
    );
}

/** Adds the options that say how to learn a service's tools and how to speak to it. */
export function addSourceOptions(command: Command): Command {
  return command
    .option(
      "--source <kind>",
      "learn the tools from: reflection, utcp or descriptors (fits the other options)",
    )
    .option("--utcp-url <url>", "the address of a UTCP manual")
    .option("--manual <file>", "a UTCP manual as a JSON file")
    .option("--descriptors <file>", "a file descriptor set, for servers without reflection")
    .option("--only <service>", "offer only this Protobuf service; may be repeated", collect)
    .option("--protocol <protocol>", "grpc, grpc-web, connect or http (grpc; http for UTCP)")
    .option(
      "--header <name=value>",
      "send this header; name=@secret sends a secret of the server's configuration; may be repeated",
      collect,
    );
}
