import { randomUUID } from "node:crypto";

/** Names a request in the logs of every server that it passes; answered with the response. */
export const correlationIdHeader = "x-correlation-id";
/** Names it where there is no other header for that. */
export const requestIdHeader = "x-request-id";

/**
 * The caller's id for the request if it is fit to be logged, else a new one.
 *
 * @param given the value of `x-correlation-id`, else of `x-request-id`
 */
export function correlationIdOf(given: string | readonly string[] | null | undefined): string {
  return typeof given === "string" && /^[A-Za-z0-9._:/+=@-]{1,128}$/.test(given) ? given : randomUUID();
}
