import { Code, ConnectError, cors as connectCors } from "@connectrpc/connect";
import { withErrorInfo } from "../errors/connect-error.ts";
import { correlationIdHeader } from "../interceptors/correlation-id.ts";
import { rateLimitHeaders } from "../interceptors/rate-limit.ts";
import { isLocalName } from "./host-check.ts";
import { hostOf, type NodeRequest, type NodeResponse } from "./node-http.ts";
import { refuse } from "./refusal.ts";

export interface CorsOptions {
  /**
   * Exact origins that may call from a browser, such as `https://tools.example.com`, or `*` for any. Default: the
   * server's own origin, and those of the same machine when the server listens there only. Such a server is also called
   * under the names in this list, as a reverse proxy on the same machine does, and under no other than local ones.
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
const responseHeaders = [
  ...connectCors.exposedHeaders,
  "Retry-After",
  ...Object.values(rateLimitHeaders),
  correlationIdHeader,
];

/**
 * Lets scripts of the allowed origins call, and refuses those of others outright: without that, a page could make
 * a server on the reader's own machine act, even though it could not read the answer.
 *
 * @param loopback whether the server can be reached from its own machine only
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
    const host = hostOf(request);
    if (origin === undefined) {
      return true;
    }
    response.setHeader("vary", "Origin");
    const own = URL.canParse(origin) && new URL(origin).host === host;
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
