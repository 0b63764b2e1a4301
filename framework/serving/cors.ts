import { Code, ConnectError, cors as connectCors } from "@connectrpc/connect";
import { withErrorInfo } from "../errors/connect-error.ts";
import { correlationIdHeader } from "./correlation-id.ts";
import type { NodeRequest, NodeResponse } from "./node-http.ts";
import { refuse } from "./refusal.ts";

export interface CorsOptions {
  /**
   * Exact origins that may call from a browser, such as `https://tools.example.com`, or `*` for any. Default: the
   * server's own origin, and those of the same machine when the server listens there only.
   */
  readonly allowedOrigins?: readonly string[];
  /** Further request headers that scripts may send. */
  readonly allowedHeaders?: readonly string[];
  /** Further response headers that scripts may read. */
  readonly exposedHeaders?: readonly string[];
}

/** Sets the headers that browsers ask for; false when the request is answered already. */
export type Cors = (request: NodeRequest, response: NodeResponse) => boolean;

/** How long browsers may remember the answer to a preflight, in seconds: the most that Chromium accepts. */
const preflightMaxAge = 7_200;

const requestHeaders = [
  ...connectCors.allowedHeaders,
  "Authorization",
  "Traceparent",
  "Tracestate",
  "X-Correlation-Id",
  "X-Request-Id",
];
const responseHeaders = [...connectCors.exposedHeaders, "Retry-After", correlationIdHeader];

/**
 * Lets scripts of the allowed origins call, and refuses those of others outright: without that, a page could make
 * a server on the reader's own machine act, even though it could not read the answer.
 *
 * @param loopback whether the server can be reached from its own machine only. Then, requests of browsers must also
 *   have come under a local name, so that a page cannot reach it by resolving its own name to 127.0.0.1.
 */
export function createCors(options: CorsOptions, loopback: boolean): Cors {
  const allowed = new Set(options.allowedOrigins ?? []);
  const allowHeaders = [...requestHeaders, ...(options.allowedHeaders ?? [])].join(", ");
  const exposeHeaders = [...responseHeaders, ...(options.exposedHeaders ?? [])].join(", ");

  function isAllowed(origin: string, host: string): boolean {
    if (allowed.has("*") || allowed.has(origin)) {
      return true;
    }
    const url = URL.canParse(origin) ? new URL(origin) : undefined;
    if (url === undefined) {
      return false;
    }
    return loopback ? options.allowedOrigins === undefined && isLocalName(url.hostname) : url.host === host;
  }

  return (request, response) => {
    const { origin } = request.headers;
    const host = ("authority" in request ? request.authority : request.headers.host) ?? "";
    const fromBrowser = origin !== undefined || request.headers["sec-fetch-mode"] !== undefined;
    if (fromBrowser && loopback && !allowed.has("*") && !isLocalName(hostnameOf(host))) {
      refuse(request, response, refused(`a server on this machine is not to be called as "${host}"`));
      return false;
    }
    if (origin === undefined) {
      return true;
    }
    response.setHeader("vary", "Origin");
    const own = hostOf(origin) === host;
    if (!own && !isAllowed(origin, host)) {
      refuse(
        request,
        response,
        refused(`the origin ${origin} may not call this server: allow it in its CORS settings`),
      );
      return false;
    }
    response.setHeader("access-control-allow-origin", origin);
    response.setHeader("access-control-expose-headers", exposeHeaders);
    if (request.method === "OPTIONS" && request.headers["access-control-request-method"] !== undefined) {
      response.statusCode = 204;
      response.setHeader("access-control-allow-methods", connectCors.allowedMethods.join(", "));
      response.setHeader("access-control-allow-headers", allowHeaders);
      response.setHeader("access-control-max-age", String(preflightMaxAge));
      response.end();
      return false;
    }
    return true;
  };
}

function refused(message: string): ConnectError {
  return withErrorInfo(new ConnectError(message, Code.PermissionDenied), "ORIGIN_NOT_ALLOWED");
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

function hostnameOf(host: string): string {
  return URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : "";
}

function isLocalName(hostname: string): boolean {
  return hostname === "localhost" || hostname.endsWith(".localhost") || isLoopback(hostname);
}

/** Whether an address can be reached from its own machine only. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host);
}
