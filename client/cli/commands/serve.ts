import type { Command } from "commander";
import { examples, type Run } from "./run.ts";

export interface ServeOptions {
  readonly listen?: string;
  readonly dataDir?: string;
  readonly databaseUrl?: string;
  readonly config?: string;
}

export function addServeCommand(program: Command, run: Run): void {
  program
    .command("serve")
    .summary("start the server")
    .description("Starts the server. It runs until it is interrupted.")
    .option("--listen <host:port>", "where to listen (TOOLPLANE_LISTEN, else 127.0.0.1:7400)")
    .option("--data-dir <path>", "where the private PostgreSQL lives (TOOLPLANE_DATA_DIR, else .toolplane)")
    .option("--database-url <url>", "a shared PostgreSQL to use instead (TOOLPLANE_DATABASE_URL)")
    .option("--config <file>", "the configuration in YAML (TOOLPLANE_CONFIG)")
    .addHelpText(
      "after",
      examples("toolplane serve", "toolplane serve --listen 127.0.0.1:0 --data-dir /tmp/toolplane"),
    )
    .action(
      run(async (context, options: ServeOptions) =>
        (await import("../actions/serve.ts")).serve(context, options),
      ),
    );
}
