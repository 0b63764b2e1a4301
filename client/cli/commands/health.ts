import type { Command } from "commander";
import { examples, type Run } from "./run.ts";
import { addServiceFilter, type ServiceFilterOptions } from "./services.ts";

export interface HealthOptions extends ServiceFilterOptions {
  readonly history?: boolean;
  readonly instance?: string;
  readonly limit?: string;
}

export function addHealthCommand(program: Command, run: Run): void {
  addServiceFilter(
    program
      .command("health")
      .summary("check the health of services")
      .description(
        "Checks the health of services now, or shows past checks. Exits with 1 when one is unhealthy.",
      )
      .argument("[service]", "the service's name or a part of it"),
  )
    .option("--history", "show past checks, newest first, instead of checking")
    .option("--instance <id>", "with --history: only this instance")
    .option("--limit <n>", "with --history: show at most so many; 0 means all (20)")
    .addHelpText(
      "after",
      examples(
        "toolplane health",
        "toolplane health weather",
        "toolplane health weather --history --limit 50",
      ),
    )
    .action(
      run(async (context, service: string | undefined, options: HealthOptions) =>
        (await import("../actions/health.ts")).health(context, service, options),
      ),
    );
}
