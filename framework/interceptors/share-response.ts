import { hash } from "node:crypto";
import { clone } from "@bufbuild/protobuf";
import { ConnectError, type UnaryRequest, type UnaryResponse } from "@connectrpc/connect";
import { anonymous, principalOf } from "./call-context.ts";
import { ownHeadersOf } from "./own-headers.ts";

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
/**
 * What Connect itself puts into an answer, and looks for there. It fits every call that speaks the same protocol in the
 * same way.
 */
const protocolHeaders = ["content-type", "grpc-encoding", "grpc-accept-encoding", "grpc-status"];
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

/** Headers and trailers of an answer that may be shared, beside what the answer to `request` carries anyway. */
export function withOwnHeaders(
  request: Pick<UnaryRequest, "contextValues">,
  shared: { readonly header: Headers; readonly trailer: Headers },
): { readonly header: Headers; readonly trailer: Headers } {
  const own = ownHeadersOf(request.contextValues);
  for (const [name, value] of own?.header ?? []) {
    shared.header.set(name, value);
  }
  for (const [name, value] of own?.trailer ?? []) {
    shared.trailer.set(name, value);
  }
  return shared;
}

/**
 * An answer for somebody else: nothing that one of the two changes reaches the other. On servers that do not remember
 * what is each call's own, both have to be calls of the same protocol: see `sharingKey`.
 */
export function copyResponse(
  response: UnaryResponse,
  request: Pick<UnaryRequest, "contextValues">,
  mayShare: HeaderFilter,
): UnaryResponse {
  return {
    ...response,
    ...withOwnHeaders(request, sharedHeaders(response, request, mayShare)),
    message: clone(response.method.output, response.message),
  };
}

/** What an answer to somebody else has of the headers and trailers of the answer to `request`. */
export function sharedHeaders(
  response: UnaryResponse,
  request: Pick<UnaryRequest, "contextValues">,
  mayShare: HeaderFilter,
): { readonly header: Headers; readonly trailer: Headers } {
  const header = filterHeaders(response.header, mayShare);
  const trailer = filterHeaders(response.trailer, mayShare);
  if (ownHeadersOf(request.contextValues) === undefined) {
    for (const name of protocolHeaders) {
      copyHeader(name, response.header, header);
      copyHeader(name, response.trailer, trailer);
    }
  }
  return { header, trailer };
}

function copyHeader(name: string, from: Headers, to: Headers): void {
  const value = from.get(name);
  if (value !== null) {
    to.set(name, value);
  }
}

/** The headers in which callers say who they are. */
const credentialHeaders = ["authorization", "cookie", "x-api-key"];

/**
 * Names what decides, beside what is asked for, whom an answer is for and how it is written. No other part of a key that
 * it is put in front of can be taken for it.
 */
export function sharingKey(
  request: Pick<UnaryRequest, "contextValues" | "header" | "requestMethod" | "url">,
): string {
  return credentialsKey(request) + protocolKey(request);
}

/**
 * The credentials of callers of whom nobody has found out who they are: then it may be the handler, or the server that
 * a client calls, who does, and answers each differently. Hashed, as keys are kept in stores, where no secret belongs.
 */
function credentialsKey({ contextValues, header }: Pick<UnaryRequest, "contextValues" | "header">): string {
  if (principalOf(contextValues).id !== anonymous.id) {
    return "";
  }
  let given = "";
  for (const name of credentialHeaders) {
    const value = header.get(name);
    if (value !== null) {
      given += `${name}:${value.length}:${value}`;
    }
  }
  return given === "" ? "" : `#${hash("sha256", given, "base64url")}#`;
}

/** All that decides how an answer is written, unless each call's own is remembered: then it can be copied into any protocol. */
function protocolKey(
  request: Pick<UnaryRequest, "contextValues" | "header" | "requestMethod" | "url">,
): string {
  if (ownHeadersOf(request.contextValues) !== undefined) {
    return "";
  }
  const query = request.requestMethod === "GET" ? new URL(request.url).searchParams : undefined;
  return JSON.stringify([
    query?.get("encoding"),
    ...["content-type", "grpc-encoding", "grpc-accept-encoding"].map((name) => request.header.get(name)),
  ]);
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
