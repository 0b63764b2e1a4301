import type { ServeOptions } from "../commands/serve.ts";
import type { Context } from "../context.ts";

/** The package that holds the server. It depends on this one, so it is only looked up when it is asked for. */
const SERVER_MODULE = "@toolplane/server/main";

/** What the server's module exports. */
interface ServerModule {
  /** Serves until the process is told to stop. */
  main(options: ServeOptions): Promise<number | undefined>;
}

export async function serve(_context: Context, options: ServeOptions): Promise<number | undefined> {
  const { main } = await importServer();
  return await main(options);
}

async function importServer(): Promise<ServerModule> {
  try {
    return (await import(SERVER_MODULE)) as ServerModule; // A name in a variable has no type.
  } catch (error) {
    if (!isMissing(error)) throw error;
    throw new Error("The server is not installed here. Install it: npm install @toolplane/server", {
      cause: error,
    });
  }
}

/** Whether the server's package itself is missing, and not one that it needs. */
function isMissing(error: unknown): boolean {
  return (
    error instanceof Error &&
    "code" in error &&
    error.code === "ERR_MODULE_NOT_FOUND" &&
    error.message.includes("'@toolplane/server'")
  );
}
