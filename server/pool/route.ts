/** Which connections a request can use. Requests with the same key share connections. */
export interface Route {
  readonly key: string;
  readonly origin: string;
  /** `host:port`, which connections are counted by. */
  readonly host: string;
  /** The HTTP version to speak; `auto`: HTTP/2 where the server speaks it, else HTTP/1.1. */
  readonly version: "h1" | "h2" | "auto";
}

export function createRoute(endpoint: string, version: Route["version"]): Route {
  const { origin, host, protocol, port } = new URL(endpoint);
  return {
    key: `${version} ${origin}`,
    origin,
    host: port ? host : `${host}:${protocol === "https:" ? 443 : 80}`,
    version,
  };
}

/** For plain HTTP: what the TLS handshake settles on, and HTTP/1.1 in cleartext, where most servers speak nothing else. */
export function createHttpRoute(endpoint: string): Route {
  return createRoute(endpoint, new URL(endpoint).protocol === "https:" ? "auto" : "h1");
}
