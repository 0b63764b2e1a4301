import type { Command } from "commander";
import { examples, type Run } from "./run.ts";
import { addServiceFilter, type ServiceFilterOptions } from "./services.ts";

export function addMonitorCommand(program: Command, run: Run): void {
  addServiceFilter(
    program
      .command("monitor")
      .summary("show services and their health live")
      .description(
        "Shows services, their health and their changes live; q ends it. In a pipe: one line an event.",
      )
      .argument("[name]", "part of the name"),
  )
    .addHelpText(
      "after",
      examples("toolplane monitor", "toolplane monitor --environment staging", "toolplane monitor --json"),
    )
    .action(
      run(async (context, name: string | undefined, options: ServiceFilterOptions) =>
        (await import("../actions/monitor.ts")).monitor(context, name, options),
      ),
    );
}
