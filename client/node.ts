import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { createConnectTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { DEFAULT_URL } from "./default-url.ts";
import * as core from "./toolplane.ts";

export { DEFAULT_URL } from "./default-url.ts";
export * from "./index.ts";

export interface NodeToolplaneOptions {
  /** The server. Default: the environment variable `TOOLPLANE_URL`, else `http://127.0.0.1:7400`. */
  readonly url?: string | undefined;
  /** Sent as `authorization: Bearer …`. Default: the environment variable `TOOLPLANE_TOKEN`, else none. */
  readonly token?: core.TokenSource | undefined;
  /** Replaces the transport; `url`, `httpVersion` and `interceptors` then mean nothing. */
  readonly transport?: Transport | undefined;
  /**
   * `1.1` works through every proxy and keeps its connections; `2` sends everything over one connection, for many calls
   * at once. Default `1.1`.
   */
  readonly httpVersion?: "1.1" | "2" | undefined;
  /** Run around every request. */
  readonly interceptors?: Interceptor[] | undefined;
  /** The deadline of requests that name none, in milliseconds; watches have none. Default: none. */
  readonly defaultTimeoutMs?: number | undefined;
}

/** A client that owns its connections. */
export interface NodeToolplane extends core.Toolplane {
  /** Closes the connections; requests that still run fail. */
  close(): void;
}

/** The largest message that is taken from a server, in bytes. */
const READ_MAX_BYTES = 64 * 1024 * 1024;

/**
 * A client for Node.
 *
 *     const toolplane = createToolplane({ url: "http://127.0.0.1:7400" });
 *     const forecast = await toolplane.callTool("weather.GetForecast", { city: "Berlin" });
 */
export function createToolplane(options: NodeToolplaneOptions = {}): NodeToolplane {
  const token = options.token ?? (process.env["TOOLPLANE_TOKEN"] || undefined);
  if (options.transport !== undefined) {
    return { ...core.createToolplane({ transport: options.transport, token }), close: () => {} };
  }
  const baseUrl = options.url ?? (process.env["TOOLPLANE_URL"] || DEFAULT_URL);
  const common = {
    baseUrl,
    readMaxBytes: READ_MAX_BYTES,
    interceptors: options.interceptors ?? [],
    ...(options.defaultTimeoutMs !== undefined && { defaultTimeoutMs: options.defaultTimeoutMs }),
  };
  if (options.httpVersion === "2") {
    const sessionManager = new Http2SessionManager(baseUrl);
    const transport = createConnectTransport({ ...common, httpVersion: "2", sessionManager });
    return { ...core.createToolplane({ transport, token }), close: () => sessionManager.abort() };
  }
  const agent = new URL(baseUrl).protocol === "https:" ? new HttpsAgent(AGENT) : new HttpAgent(AGENT);
  const transport = createConnectTransport({ ...common, httpVersion: "1.1", nodeOptions: { agent } });
  return { ...core.createToolplane({ transport, token }), close: () => agent.destroy() };
}

const AGENT = { keepAlive: true } as const;
