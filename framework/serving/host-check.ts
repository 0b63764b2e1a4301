import { Code, ConnectError } from "@connectrpc/connect";
import { withErrorInfo } from "../errors/connect-error.ts";
import { hostOf, type NodeRequest, type NodeResponse } from "./node-http.ts";
import { refuse } from "./refusal.ts";

/** False when the request is answered already. */
export type HostCheck = (request: NodeRequest, response: NodeResponse) => boolean;

/** The longest name that is repeated in an answer, in characters. */
const MAX_ECHOED = 100;

/**
 * On a server that can be reached from its own machine only, refuses every request that has come under a name which is
 * neither local nor that of an allowed origin. Otherwise a page could have its own name resolved to 127.0.0.1 and then read
 * whatever a GET gives ("DNS rebinding"): such a request is of the page's own origin, so that browsers send no `Origin`,
 * nor do they send `Sec-Fetch-*` from pages without TLS.
 *
 * @param allowedOrigins as in `CorsOptions`; `*` allows every name
 * @param loopback whether the server can be reached from its own machine only; otherwise nothing is refused, since it
 *   cannot know its names
 */
export function createHostCheck(allowedOrigins: readonly string[] | undefined, loopback: boolean): HostCheck {
  if (!loopback || allowedOrigins?.includes("*")) {
    return () => true;
  }
  const allowed = new Set(allowedOrigins?.map(hostnameOf));
  // Most requests in a row name the same host.
  let lastAllowed = "";

  return (request, response) => {
    const host = hostOf(request);
    // No browser leaves it away; HTTP/1.0 does not know it.
    if (host === "" || host === lastAllowed) {
      return true;
    }
    const hostname = hostnameOf(`http://${host}`);
    if (isLocalName(hostname) || allowed.has(hostname)) {
      lastAllowed = host;
      return true;
    }
    refuse(request, response, hostNotAllowed(host));
    return false;
  };
}

function hostNotAllowed(host: string): ConnectError {
  const name = host.length > MAX_ECHOED ? `${host.slice(0, MAX_ECHOED)}…` : host;
  const error = new ConnectError(
    `this server listens on its own machine only and is not to be called as "${name}": ` +
      `call it as localhost or 127.0.0.1, or add "http://${name}" to its allowed origins (cors.allowed_origins)`,
    Code.PermissionDenied,
  );
  return withErrorInfo(error, "HOST_NOT_ALLOWED");
}

/** In lower case, numbers as addresses; empty when there is none. */
function hostnameOf(origin: string): string {
  return URL.canParse(origin) ? new URL(origin).hostname.replace(/\.$/, "") : "";
}

/** Whether a name stands for the machine itself wherever it is looked up. */
export function isLocalName(hostname: string): boolean {
  return hostname === "localhost" || hostname.endsWith(".localhost") || isLoopback(hostname);
}

/** Whether an address can be reached from its own machine only. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host);
}
