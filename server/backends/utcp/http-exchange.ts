import type { Readable } from "node:stream";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Dispatcher } from "undici";
import { domainErrorOf } from "../../pool/index.ts";

const MAX_REDIRECTS = 3;
/** Of an answer that reports an error, only the beginning is of interest. */
const MAX_ERROR_BYTES = 64 * 1024;

export interface HttpExchange {
  readonly dispatcher: Dispatcher;
  readonly method: Dispatcher.HttpMethod;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
  /** Bounds the whole exchange: there is no other timeout. */
  readonly signal: AbortSignal;
  /** A longer answer fails the exchange. In bytes. */
  readonly maxBytes: number;
  /** Whether to go to another origin when sent there; headers and body are then left behind. */
  readonly crossOriginRedirects: "refuse" | "bare";
}

export interface HttpAnswer {
  /** Where the answer came from, after redirects. */
  readonly url: URL;
  readonly status: number;
  readonly headers: Headers;
  /** Cut after 64 KiB when the status is 400 or above. */
  readonly body: Uint8Array;
}

export type ExchangeFailure = "UNREACHABLE" | "TOO_LARGE" | "REDIRECTED" | "UNREADABLE";

/** An exchange that brought no answer. Aborting throws the signal's reason instead, and a pool its own errors. */
export class ExchangeError extends Error {
  readonly failure: ExchangeFailure;

  constructor(failure: ExchangeFailure, message: string, cause?: unknown) {
    super(message, { cause });
    this.failure = failure;
  }
}

/** Sends a request, follows at most 3 redirects, and reads the answer up to a limit. */
export async function exchange(request: HttpExchange): Promise<HttpAnswer> {
  let { url, method, headers, body } = request;
  for (let redirects = 0; ; redirects++) {
    const response = await send(request, url, method, headers, body).catch((error: unknown) => {
      throw redirects === 0 ? error : afterRedirect(request.signal, url, error);
    });
    const location = response.headers.get("location");
    if (!isRedirect(response.status) || location === null) {
      const answer = { url, status: response.status, headers: response.headers };
      return { ...answer, body: await readBody(request, response) };
    }
    discard(response.body);
    if (redirects === MAX_REDIRECTS) {
      throw new ExchangeError(
        "REDIRECTED",
        `${request.url.origin} redirects more than ${MAX_REDIRECTS} times`,
      );
    }
    const next = URL.parse(location, url.href);
    if (!next || !/^https?:$/.test(next.protocol)) {
      throw new ExchangeError("REDIRECTED", `${url.origin} redirects to something that is no HTTP address`);
    }
    if (next.origin !== url.origin) {
      if (request.crossOriginRedirects === "refuse") {
        throw new ExchangeError(
          "REDIRECTED",
          `${url.origin} redirects to ${next.origin}, which is not followed`,
        );
      }
      headers = {};
      body = undefined;
    }
    // As the Fetch standard has it: 307 and 308 repeat the request, the others turn anything into a GET.
    if (response.status !== 307 && response.status !== 308) {
      method = "GET";
      body = undefined;
      headers = Object.fromEntries(Object.entries(headers).filter(([name]) => name !== "content-type"));
    }
    url = next;
  }
}

interface Response {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Readable;
}

async function send(
  { dispatcher, signal }: HttpExchange,
  url: URL,
  method: Dispatcher.HttpMethod,
  headers: Readonly<Record<string, string>>,
  body: string | undefined,
): Promise<Response> {
  try {
    const response = await dispatcher.request({
      origin: url.origin,
      path: url.pathname + url.search,
      method,
      // Compressed answers could grow beyond any limit while they are unpacked, and small ones gain nothing.
      headers: { ...headers, "accept-encoding": "identity" },
      body: body ?? null,
      signal,
      headersTimeout: 0,
      bodyTimeout: 0,
    });
    const received = new Headers();
    for (const [name, value] of Object.entries(response.headers)) {
      for (const item of typeof value === "string" ? [value] : (value ?? [])) {
        received.append(name, item);
      }
    }
    return { status: response.statusCode, headers: received, body: response.body };
  } catch (error) {
    throw failure(signal, url, error);
  }
}

async function readBody(request: HttpExchange, { status, headers, body }: Response): Promise<Uint8Array> {
  const encoding = headers.get("content-encoding") ?? "identity";
  if (encoding.toLowerCase() !== "identity") {
    discard(body);
    throw new ExchangeError(
      "UNREADABLE",
      `${request.url.origin} compressed its answer (${encoding}) unasked`,
    );
  }
  const failed = status >= 400;
  const limit = failed ? Math.min(MAX_ERROR_BYTES, request.maxBytes) : request.maxBytes;
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    // Leaving the loop destroys the stream and with it the rest of the answer.
    for await (const chunk of body) {
      const bytes: Uint8Array = chunk;
      chunks.push(bytes);
      size += bytes.byteLength;
      if (size > limit) {
        break;
      }
    }
  } catch (error) {
    throw failure(request.signal, request.url, error);
  }
  if (size > limit && !failed) {
    throw new ExchangeError("TOO_LARGE", `${request.url.origin} answered with more than ${limit} bytes`);
  }
  return Buffer.concat(chunks).subarray(0, limit);
}

/** Ends an answer that nobody reads. undici reports that as an error of the stream, which is then expected. */
function discard(body: Readable): void {
  body.on("error", () => undefined).destroy();
}

function failure(signal: AbortSignal, url: URL, error: unknown): unknown {
  if (signal.aborted) {
    return signal.reason;
  }
  const known = domainErrorOf(error);
  if (known) {
    // What failed to connect has the backend's name on it: the caller adds which instance it was.
    return known.init.code === Code.Unavailable ? error : known;
  }
  if (error instanceof ConnectError) {
    return error;
  }
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const text = code || (error instanceof Error ? error.message : String(error));
  return new ExchangeError("UNREACHABLE", `${url.origin} cannot be reached: ${text}`, error);
}

/** A server has acted on the call already: that the next one was not reached must not look as if none was. */
function afterRedirect(signal: AbortSignal, url: URL, error: unknown): unknown {
  const known = domainErrorOf(error);
  return signal.aborted || !known
    ? error
    : new ExchangeError("UNREACHABLE", `after a redirect to ${url.origin}: ${known.message}`, error);
}

function isRedirect(status: number): boolean {
  return status === 301 || status === 302 || status === 303 || status === 307 || status === 308;
}
