import { Readable } from "node:stream";
import { Code, ConnectError } from "@connectrpc/connect";
import type {
  UniversalClientFn,
  UniversalClientRequest,
  UniversalClientResponse,
} from "@connectrpc/connect/protocol";
import { createNodeHttpClient } from "@connectrpc/connect-node";
import type { Broker, Lease } from "./broker.ts";
import type { Outcome } from "./connection.ts";
import { asConnectError, connectionLost } from "./errors.ts";
import type { H1Link } from "./h1-link.ts";
import type { H2Link } from "./h2-link.ts";
import type { Route } from "./route.ts";

/** Statuses with which a server or a proxy before it says that it cannot serve now. */
const UNAVAILABLE_STATUSES = [502, 503, 504];

/** The HTTP client under a Connect transport: every request goes over a connection of the route. */
export function createPooledClient(broker: Broker, route: Route): UniversalClientFn {
  return async (request) => {
    let lease: Lease;
    try {
      lease = await broker.acquire(route, request.signal);
    } catch (error) {
      throw asConnectError(error);
    }
    const { link } = lease;
    switch (link.protocol) {
      case "h2":
        return requestOverH2(link, lease, request);
      case "h1":
        return requestOverH1(link, lease, request, route.origin);
    }
  };
}

async function requestOverH2(
  link: H2Link,
  lease: Lease,
  request: UniversalClientRequest,
): Promise<UniversalClientResponse> {
  let opened = false;
  const client = createNodeHttpClient({
    httpVersion: "2",
    sessionProvider: () =>
      link.manager((stream) => {
        opened = true;
        let answered = false;
        let unavailable = false;
        stream.once("response", (headers) => {
          answered = true;
          unavailable =
            UNAVAILABLE_STATUSES.includes(Number(headers[":status"])) ||
            Number(headers["grpc-status"]) === Code.Unavailable;
        });
        stream.once("trailers", (trailers) => {
          unavailable ||= Number(trailers["grpc-status"]) === Code.Unavailable;
        });
        stream.once("close", () => {
          if (!answered && timedOut(request.signal)) {
            link.verify("timeout");
          }
          lease.release(outcomeOf(answered && stream.readableEnded && !unavailable, request.signal));
        });
      }),
  });
  const translate = (error: unknown) => (request.signal?.aborted ? error : link.errorOf(error));
  try {
    const response = await client(request);
    return { ...response, body: translateErrors(response.body, translate) };
  } catch (error) {
    if (!opened) {
      lease.release("neutral");
    }
    throw translate(error);
  }
}

async function requestOverH1(
  link: H1Link,
  lease: Lease,
  request: UniversalClientRequest,
  origin: string,
): Promise<UniversalClientResponse> {
  const { pathname, search } = new URL(request.url);
  const dispatcher = link.dispatcher((outcome) => {
    const ok = "status" in outcome && !UNAVAILABLE_STATUSES.includes(outcome.status);
    lease.release(outcomeOf(ok, request.signal));
  });
  const translate = (error: unknown) =>
    error instanceof ConnectError || request.signal?.aborted ? error : connectionLost(origin, error);
  try {
    const response = await dispatcher.request({
      origin,
      path: pathname + search,
      method: request.method,
      headers: [...request.header].flat(),
      body: request.body ? Readable.from(request.body, { objectMode: false }) : null,
      signal: request.signal ?? null,
    });
    const trailer = new Headers();
    return {
      status: response.statusCode,
      header: toHeaders(response.headers),
      body: translateErrors(response.body, translate, () => {
        for (const [name, value] of toHeaders(response.trailers)) {
          trailer.append(name, value);
        }
      }),
      trailer,
    };
  } catch (error) {
    throw translate(error);
  }
}

function outcomeOf(ok: boolean, signal: AbortSignal | undefined): Outcome {
  if (ok) {
    return "ok";
  }
  return signal?.aborted && !timedOut(signal) ? "neutral" : "failed";
}

function timedOut(signal: AbortSignal | undefined): boolean {
  return signal?.reason instanceof ConnectError && signal.reason.code === Code.DeadlineExceeded;
}

function toHeaders(record: Record<string, string | string[] | undefined>): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(record)) {
    for (const item of Array.isArray(value) ? value : [value ?? ""]) {
      headers.append(name, item);
    }
  }
  return headers;
}

function translateErrors(
  body: AsyncIterable<Uint8Array>,
  translate: (error: unknown) => unknown,
  onEnd?: () => void,
): AsyncIterable<Uint8Array> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = body[Symbol.asyncIterator]();
      return {
        async next() {
          try {
            const result = await iterator.next();
            if (result.done) {
              onEnd?.();
            }
            return result;
          } catch (error) {
            throw translate(error);
          }
        },
        async throw(error: unknown) {
          try {
            await (iterator.throw?.(error) ?? iterator.return?.());
          } catch {
            // A stream that is told to stop fails with what it is told.
          }
          throw error;
        },
      };
    },
  };
}
