import type { Interceptor, Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import * as core from "./toolplane.ts";

export * from "./index.ts";

export interface WebToolplaneOptions {
  /** The server. Default `/`: the one that served the page. */
  readonly url?: string | undefined;
  /** Sent as `authorization: Bearer …`. Default: none. */
  readonly token?: core.TokenSource | undefined;
  /** Replaces the transport; `url` and `interceptors` then mean nothing. */
  readonly transport?: Transport | undefined;
  /** Run around every request. */
  readonly interceptors?: Interceptor[] | undefined;
}

/**
 * A client for browsers, and for anything else that has `fetch`.
 *
 *     const toolplane = createToolplane();
 *     for await (const { event } of toolplane.watchServices()) console.log(event);
 */
export function createToolplane(options: WebToolplaneOptions = {}): core.Toolplane {
  const transport =
    options.transport ??
    createConnectTransport({ baseUrl: options.url ?? "/", interceptors: options.interceptors ?? [] });
  return core.createToolplane({ transport, token: options.token });
}
