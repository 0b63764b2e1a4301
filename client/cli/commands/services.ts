import type { Command } from "commander";
import { collect } from "../input/pairs.ts";
import { examples, type Run } from "./run.ts";

/** The options that say which services are meant. */
export interface ServiceFilterOptions {
  readonly environment?: string;
  readonly version?: string;
  readonly tag?: readonly string[];
  readonly health?: string;
}

/** The options that name one of the services with the same name. */
export interface ServiceRefOptions {
  readonly environment?: string;
  readonly version?: string;
}

export interface ListServicesOptions extends ServiceFilterOptions {
  readonly limit: string;
}

export function addServicesCommands(program: Command, run: Run): void {
  const services = program
    .command("services")
    .alias("service")
    .summary("list, show and watch services")
    .description("Lists, shows and watches the registered services. Without a verb: lists them.")
    .addHelpText("after", examples("toolplane services", "toolplane services show weather"));

  addServiceFilter(
    services
      .command("list", { isDefault: true })
      .description("Lists services with their state.")
      .argument("[name]", "part of the name"),
  )
    .option("--limit <n>", "list at most so many; 0 means all", "100")
    .addHelpText(
      "after",
      examples(
        "toolplane services",
        "toolplane services list wea --tag demo",
        "toolplane services list --health unhealthy",
        "toolplane services list --json | jq -r '.services[].name'",
      ),
    )
    .action(
      run(async (context, name: string | undefined, options: ListServicesOptions) =>
        (await import("../actions/services.ts")).listServices(context, name, options),
      ),
    );

  services
    .command("show")
    .description("Shows one service: its instances, their health, and what is wrong with it.")
    .argument("<service>", "the name of the service")
    .option("--environment <name>", "its environment (default)")
    .option("--version <version>", "its version (the highest)")
    .addHelpText(
      "after",
      examples("toolplane services show weather", "toolplane services show weather --version 1.2.0"),
    )
    .action(
      run(async (context, name: string, options: ServiceRefOptions) =>
        (await import("../actions/services.ts")).showService(context, name, options),
      ),
    );

  addServiceFilter(
    services
      .command("watch")
      .description("Prints the services as they are, then every change until it is interrupted.")
      .argument("[name]", "part of the name"),
  )
    .addHelpText(
      "after",
      examples("toolplane services watch", "toolplane services watch --json | jq -c '.updated.state'"),
    )
    .action(
      run(async (context, name: string | undefined, options: ServiceFilterOptions) =>
        (await import("../actions/watch.ts")).watchServices(context, name, options),
      ),
    );

  program
    .command("refresh")
    .summary("learn a service's tools again")
    .description("Learns a service's tools again and shows what changed.")
    .argument("<service>", "the name of the service")
    .option("--environment <name>", "its environment (default)")
    .option("--version <version>", "its version (the highest)")
    .addHelpText("after", examples("toolplane refresh weather"))
    .action(
      run(async (context, name: string, options: ServiceRefOptions) =>
        (await import("../actions/services.ts")).refreshService(context, name, options),
      ),
    );
}

/** Adds the options that say which services are meant. */
export function addServiceFilter(command: Command): Command {
  return command
    .option("--environment <name>", "only in this environment")
    .option("--version <version>", "only this version")
    .option("--tag <tag>", "only with this tag; may be repeated, all must be present", collect)
    .option("--health <health>", "only with an instance that is healthy, unhealthy or unknown");
}
