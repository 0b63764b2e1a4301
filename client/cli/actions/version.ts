import { Code, ConnectError } from "@connectrpc/connect";
import { version as clientVersion } from "../../version.ts";
import type { VersionOptions } from "../commands/version.ts";
import type { Context } from "../context.ts";

/** The name under which a server is registered with itself. */
const SERVER_SERVICE = "toolplane";

export async function version(context: Context, options: VersionOptions): Promise<undefined> {
  const client = {
    version: clientVersion,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
  };
  const { paint } = context;
  const isClientOnly = options.client === true;
  if (!context.json) {
    const runtime = paint.dim(`on Node ${client.node.slice(1)}, ${client.platform}`);
    await context.print(`${paint.bold("toolplane")}  ${client.version}  ${runtime}`);
  } else if (isClientOnly) await context.printJson({ client });
  if (isClientOnly) return;
  const serverVersion = await readServerVersion(context);
  if (context.json) {
    await context.printJson({ client, server: { url: context.url, version: serverVersion ?? "" } });
  } else {
    await context.print(
      `${paint.bold("server")}     ${serverVersion ?? "version not known"}  ${paint.dim(`at ${context.url}`)}`,
    );
  }
}

/** The version that the server has registered itself with. Throws when the server does not answer. */
async function readServerVersion(context: Context): Promise<string | undefined> {
  const { registry } = await context.connect();
  try {
    const request = { service: { name: SERVER_SERVICE } };
    const { service } = await registry.getService(request, { signal: context.io.signal });
    return service?.version;
  } catch (error) {
    if (error instanceof ConnectError && error.code === Code.NotFound) return undefined;
    throw error;
  }
}
