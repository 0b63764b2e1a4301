import { stringify } from "node:querystring";
import { Readable } from "node:stream";
import { type Dispatcher, errors, FormData, Response } from "undici";
import { createReplayableBody, type ReplayableBody } from "./replayable-body.ts";

/** A request from undici's options, in the terms of HTTP/2. */
export interface DispatchedRequest {
  readonly method: string;
  readonly path: string;
  /** With pseudo-headers; names in lower case. */
  readonly headers: Record<string, string | string[]>;
  readonly body: Uint8Array | ReplayableBody | undefined;
  /** In milliseconds; 0: none. */
  readonly headersTimeoutMs: number;
  readonly bodyTimeoutMs: number;
}

/** Methods whose requests are expected to have a body: they tell its length even when it is empty. */
const WITH_BODY = /^(POST|PUT|PATCH|QUERY|PROPFIND|PROPPATCH)$/;
/** What undici refuses in HTTP/1.1, so that a request does not depend on the version that happens to be spoken. */
const REFUSED = /^(transfer-encoding|keep-alive|upgrade|expect)$/;
/** Headers about the connection, which HTTP/2 forbids (RFC 9113, section 8.2.2). */
const OF_CONNECTION = /^(connection|proxy-connection|http2-settings)$/;
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Visible characters, spaces, tabs and Latin-1 (RFC 9110, section 5.5). */
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const PATH = /^\/[\x21-\xff]*$/;

/** Throws undici's InvalidArgumentError for what cannot be sent. */
export function readRequest(options: Dispatcher.DispatchOptions): DispatchedRequest {
  const { method, query } = options;
  const path = query && Object.keys(query).length > 0 ? `${options.path}?${stringify(query)}` : options.path;
  if (!PATH.test(path)) {
    throw new errors.InvalidArgumentError(
      "path must start with a slash, without spaces and control characters",
    );
  }
  if (!TOKEN.test(method)) {
    throw new errors.InvalidArgumentError("invalid request method");
  }
  const headers = readHeaders(options.headers);
  const { body, length, contentType } = readBody(options.body);
  if (contentType !== undefined) {
    headers["content-type"] ??= contentType;
  }
  const announced = headers["content-length"];
  if (length !== undefined) {
    if (announced !== undefined && announced !== String(length)) {
      throw new errors.RequestContentLengthMismatchError();
    }
    if (length > 0 || WITH_BODY.test(method)) {
      headers["content-length"] = String(length);
    } else {
      delete headers["content-length"];
    }
  }
  const { host, ...others } = headers;
  return {
    method,
    path,
    headers: {
      ":method": method,
      ":path": path,
      ...(host === undefined ? {} : { ":authority": host }),
      ...others,
    },
    body,
    headersTimeoutMs: options.headersTimeout ?? 0,
    bodyTimeoutMs: options.bodyTimeout ?? 0,
  };
}

function readHeaders(source: Dispatcher.DispatchOptions["headers"]): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = {};
  const ofConnection = new Set<string>();
  for (const [key, value] of pairs(source)) {
    const name = key.toLowerCase();
    if (value === undefined) {
      continue;
    }
    if (!TOKEN.test(name) || REFUSED.test(name)) {
      throw new errors.InvalidArgumentError(`invalid ${name} header`);
    }
    for (const item of Array.isArray(value) ? value : [value]) {
      const text = item === null ? "" : String(item);
      if (!VALUE.test(text)) {
        throw new errors.InvalidArgumentError(`invalid ${name} header`);
      }
      if (name === "connection") {
        for (const option of text.split(",")) {
          ofConnection.add(option.trim().toLowerCase());
        }
      }
      const before = headers[name];
      headers[name] = before === undefined ? text : [before, text].flat();
    }
  }
  for (const name of Object.keys(headers)) {
    const forbidden = OF_CONNECTION.test(name) || (name === "te" && headers[name] !== "trailers");
    if (forbidden || ofConnection.has(name)) {
      delete headers[name];
    }
  }
  for (const name of ["host", "content-length"]) {
    if (Array.isArray(headers[name])) {
      throw new errors.InvalidArgumentError(`duplicate ${name} header`);
    }
  }
  return headers;
}

/** Headers come as a flat list, as pairs, or as an object. */
function* pairs(source: Dispatcher.DispatchOptions["headers"]): Generator<[string, unknown]> {
  if (!source) {
    return;
  }
  if (Array.isArray(source)) {
    for (let index = 0; index + 1 < source.length; index += 2) {
      yield [String(source[index]), source[index + 1]];
    }
  } else if (Symbol.iterator in source) {
    yield* source;
  } else {
    yield* Object.entries(source);
  }
}

interface Body {
  readonly body: Uint8Array | ReplayableBody | undefined;
  /** Undefined when it will only be known at the end. */
  readonly length?: number;
  readonly contentType?: string | undefined;
}

/** The bodies that undici takes: more than its types say. */
function readBody(source: unknown): Body {
  if (source === null || source === undefined) {
    return { body: undefined, length: 0 };
  }
  if (typeof source === "string") {
    return bytes(Buffer.from(source));
  }
  if (ArrayBuffer.isView(source)) {
    return bytes(Buffer.from(source.buffer, source.byteOffset, source.byteLength));
  }
  if (source instanceof ArrayBuffer) {
    return bytes(Buffer.from(source));
  }
  if (source instanceof FormData) {
    const { body, headers } = new Response(source);
    return { body: replayable(body ?? []), contentType: headers.get("content-type") ?? undefined };
  }
  if (source instanceof Blob) {
    return { body: replayable(source.stream()), length: source.size };
  }
  if (source instanceof Readable || isIterable(source)) {
    return { body: replayable(source) };
  }
  throw new errors.InvalidArgumentError(
    "body must be a string, a Buffer, a Readable stream, an iterable, or an async iterable",
  );
}

function bytes(body: Buffer): Body {
  return { body: body.byteLength > 0 ? body : undefined, length: body.byteLength };
}

function isIterable(source: unknown): source is Iterable<unknown> | AsyncIterable<unknown> {
  return (
    typeof source === "object" &&
    source !== null &&
    (Symbol.asyncIterator in source || Symbol.iterator in source)
  );
}

function replayable(source: Iterable<unknown> | AsyncIterable<unknown>): ReplayableBody {
  return createReplayableBody(toBytes(source));
}

async function* toBytes(
  source: Iterable<unknown> | AsyncIterable<unknown>,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const chunk of source) {
    if (typeof chunk === "string") {
      yield Buffer.from(chunk);
    } else if (chunk instanceof Uint8Array) {
      yield chunk;
    } else {
      throw new errors.InvalidArgumentError("a body must consist of strings and bytes");
    }
  }
}
