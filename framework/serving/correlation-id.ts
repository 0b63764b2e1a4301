import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";

/** Names a request in the logs of every server that it passes; answered with the response. */
export const correlationIdHeader = "x-correlation-id";

/** The caller's id for the request if it is fit to be logged, else a new one. */
export function correlationIdOf(headers: IncomingHttpHeaders): string {
  const given = headers[correlationIdHeader] ?? headers["x-request-id"];
  return typeof given === "string" && /^[A-Za-z0-9._:/+=@-]{1,128}$/.test(given) ? given : randomUUID();
}
