import { clone } from "@bufbuild/protobuf";
import { ConnectError, type UnaryResponse } from "@connectrpc/connect";

/**
 * Headers that say something about the answer itself and not about the call that brought it. All others stay with
 * that call: cookies, limits, correlation ids, traces.
 */
const shareable = new Set([
  "age",
  "cache-control",
  "content-language",
  "deprecation",
  "etag",
  "expires",
  "last-modified",
  "link",
  "retry-after",
  "sunset",
  "vary",
  "warning",
]);
/** What this framework says of an answer, such as that it is stale. */
const ownPrefix = "x-toolplane-";

/** Which headers and trailers of an answer may go to those who did not cause it. */
export type HeaderFilter = (name: string) => boolean;

/** @param further names of a service's own headers that are the same for everyone who asks the same */
export function createHeaderFilter(further: readonly string[] = []): HeaderFilter {
  const names = new Set([...shareable, ...further.map((name) => name.toLowerCase())]);
  return (name) => names.has(name) || name.startsWith(ownPrefix);
}

export function filterHeaders(headers: Headers, mayShare: HeaderFilter): Headers {
  const shared = new Headers();
  for (const [name, value] of headers) {
    if (mayShare(name)) {
      shared.append(name, value);
    }
  }
  return shared;
}

/** An answer for somebody else: nothing that one of the two changes reaches the other. */
export function copyResponse(response: UnaryResponse, mayShare: HeaderFilter): UnaryResponse {
  return {
    ...response,
    header: filterHeaders(response.header, mayShare),
    trailer: filterHeaders(response.trailer, mayShare),
    message: clone(response.method.output, response.message),
  };
}

/**
 * A failure for somebody else. Only a ConnectError carries what belongs to a call, and only that is changed on the way
 * to the wire; any other error is shared as it is.
 */
export function copyError(error: unknown, mayShare: HeaderFilter): unknown {
  if (!(error instanceof ConnectError)) {
    return error;
  }
  const copy = new ConnectError(
    error.rawMessage,
    error.code,
    filterHeaders(error.metadata, mayShare),
    undefined,
    error.cause,
  );
  copy.details = [...error.details];
  // Tells errors of a backend from our own.
  copy.isWireError = error.isWireError;
  return copy;
}
