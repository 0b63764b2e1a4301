import { styleText } from "node:util";
import { closeOnSignals, createLogger, systemClock } from "@toolplane/framework";
import { type App, createApp } from "./app.ts";
import { type ConfigOverrides, loadSettings } from "./config/load.ts";
import { DEFAULT_LISTEN, type Settings } from "./config/settings.ts";
import { version } from "./version.ts";

/**
 * Starts a server, says on standard output what to do next, and logs to standard error. It runs until SIGINT or SIGTERM.
 *
 * Throws a DomainError that says what to change when the configuration is wrong, or the address or the data directory is
 * taken.
 */
export async function main(overrides: ConfigOverrides = {}): Promise<void> {
  const settings = loadSettings(overrides, process.env);
  const { level, format } = settings.log;
  const logger = createLogger({
    name: "toolplane",
    level,
    ...(format && { format }),
    destination: process.stderr,
  });
  const starting = createApp({ settings, clock: systemClock, logger, env: process.env });
  // Also while it starts: a database that is being set up is finished and stopped, not left behind.
  closeOnSignals({ logger, close: async () => (await starting).close() });
  process.stdout.write(welcome(await starting, settings));
}

/** What a person who has just started the server wants to know. Times count from the start of the process. */
function welcome(app: App, settings: Settings): string {
  const bold = (text: string) => styleText("bold", text, { stream: process.stdout });
  const dim = (text: string) => styleText("dim", text, { stream: process.stdout });
  const { services, tools } = app.counts();
  const elsewhere = settings.listen === DEFAULT_LISTEN ? "" : ` --url ${app.url}`;
  const data =
    app.databaseKind === "private"
      ? `${settings.dataDir} (its own PostgreSQL)`
      : "the PostgreSQL of database_url";
  return `
  ${bold("Toolplane")} ${version} is serving ${dim(`after ${Math.round(performance.now())} ms`)}

    Address    ${bold(app.url)}  ${dim("gRPC, gRPC-Web and Connect over HTTP/2 and HTTP/1.1")}
    Data       ${data}
    Registry   ${services} ${services === 1 ? "service" : "services"}, ${tools} tools

  Next, in another terminal:

    npx toolplane${elsewhere} register my-service localhost:50051   ${dim("# any gRPC server with reflection")}
    npx toolplane${elsewhere} tools list                            ${dim("# what can be called")}
    npx toolplane${elsewhere} call toolplane.ListServices           ${dim("# call it")}

`;
}
