import type http2 from "node:http2";
import { Readable } from "node:stream";
import { ConnectError } from "@connectrpc/connect";
import type {
  UniversalClientFn,
  UniversalClientRequest,
  UniversalClientResponse,
} from "@connectrpc/connect/protocol";
import { createNodeHttpClient } from "@connectrpc/connect-node";
import type { Broker, Lease } from "./broker.ts";
import { asConnectError, connectionLost, domainErrorOf, http2Required, refusesCalls } from "./errors.ts";
import type { H1Link } from "./h1-link.ts";
import type { H2Link } from "./h2-link.ts";
import { toHeaders } from "./node-headers.ts";
import { isUnavailable, outcomeOf, saysUnavailable, timedOut } from "./outcome.ts";
import { createReplayableBody } from "./replayable-body.ts";
import type { Route } from "./route.ts";

/** How often a request is sent that the peer refuses without having looked at it. */
const MAX_ATTEMPTS = 3;

/**
 * The HTTP client under a Connect transport: every request goes over a connection of the route. A request that the peer
 * refused unseen, as happens when it goes away at that moment, is sent again over another connection.
 */
export function createPooledClient(
  broker: Broker,
  route: Route,
  { needsHttp2 = false }: { readonly needsHttp2?: boolean } = {},
): UniversalClientFn {
  async function acquire(signal: AbortSignal | undefined): Promise<Lease> {
    try {
      return await broker.acquire(route, signal);
    } catch (error) {
      throw asConnectError(error);
    }
  }

  return async (request) => {
    const replay = request.body && createReplayableBody(request.body);
    const replayed = replay ? { ...request, body: replay.body } : request;
    for (let attempt = 1; ; attempt++) {
      const lease = await acquire(request.signal);
      const { link } = lease;
      if (link.protocol === "h1") {
        if (needsHttp2) {
          lease.release("neutral");
          throw asConnectError(http2Required(route.origin));
        }
      }
      try {
        const response = await (link.protocol === "h1"
          ? requestOverH1(link, lease, replayed, route.origin)
          : requestOverH2(link, lease, replayed));
        replay?.forget();
        return response;
      } catch (error) {
        if (!(error instanceof RefusedError)) {
          throw error;
        }
        if (request.signal?.aborted) {
          throw error.cause;
        }
        if (attempt === MAX_ATTEMPTS || replay?.replayable() === false) {
          throw asConnectError(refusesCalls(route.origin, error.cause));
        }
      }
    }
  };
}

/** The peer did not look at a request: it refused it, or there was no connection any more to send it over. */
class RefusedError extends Error {}

async function requestOverH2(
  link: H2Link,
  lease: Lease,
  request: UniversalClientRequest,
): Promise<UniversalClientResponse> {
  let stream: http2.ClientHttp2Stream | undefined;
  let answered = false;
  let unavailable = false;
  const release = (ok: boolean) => lease.release(outcomeOf(ok && !unavailable, request.signal));
  const client = createNodeHttpClient({
    httpVersion: "2",
    sessionProvider: () =>
      link.manager((opened) => {
        stream = opened;
        opened.once("response", (headers) => {
          answered = true;
          unavailable = saysUnavailable(headers);
        });
        opened.once("trailers", (trailers) => {
          unavailable ||= saysUnavailable(trailers);
        });
        opened.once("close", () => {
          if (!answered && timedOut(request.signal)) {
            link.verify("timeout");
          }
          release(answered && opened.readableEnded);
        });
      }),
  });
  const translate = (error: unknown) => (request.signal?.aborted ? error : link.errorOf(error));
  try {
    const response = await client(request);
    const onEnd = () => {
      // Node closes the stream a little later. Unless we are still sending, the peer counts it as closed now.
      if (stream?.writableEnded) {
        release(true);
      }
    };
    return { ...response, body: translateErrors(response.body, translate, onEnd) };
  } catch (error) {
    if (!stream) {
      lease.release("neutral");
    }
    const ours = domainErrorOf(error);
    if (!stream && ours) {
      throw asConnectError(ours);
    }
    const refused = !stream || (!answered && link.refused(stream));
    throw refused ? new RefusedError("refused", { cause: translate(error) }) : translate(error);
  }
}

async function requestOverH1(
  link: H1Link,
  lease: Lease,
  request: UniversalClientRequest,
  origin: string,
): Promise<UniversalClientResponse> {
  const { pathname, search } = new URL(request.url);
  let unsent = false;
  const dispatcher = link.dispatcher((outcome) => {
    unsent = "error" in outcome && outcome.unsent;
    const ok = "status" in outcome && !isUnavailable(outcome.status);
    lease.release(outcomeOf(ok, request.signal));
  });
  const translate = (error: unknown) =>
    error instanceof ConnectError || request.signal?.aborted
      ? error
      : asConnectError(connectionLost(origin, error));
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
    throw unsent ? new RefusedError("unsent", { cause: translate(error) }) : translate(error);
  }
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
