import http2 from "node:http2";
import type { Socket } from "node:net";
import type { NodeHttpClientOptions } from "@connectrpc/connect-node";
import type { Clock } from "@toolplane/framework";
import { asConnectError, connectionLost, headersTooLarge, NotSentError } from "./errors.ts";
import type { PoolLimits } from "./limits.ts";
import type { BaseLink, LinkEvents } from "./link.ts";

/** What connect-node wants to open a stream with. */
export type SessionManager = ReturnType<
  NonNullable<Extract<NodeHttpClientOptions, { httpVersion: "2" }>["sessionProvider"]>
>;

/** Bytes of one stream that may be in flight: enough for 5 MB/s over 50 ms, and a bound for unread results. */
const STREAM_WINDOW = 256 * 1024;
const CONNECTION_WINDOW = 1024 * 1024;
/** Bytes of headers, those of a response counted as RFC 9113 does, in section 6.5.2. nghttp2 sends no more than these. */
const MAX_HEADER_BYTES = 64 * 1024;
/** How long a connection that was closed may linger until the peer has closed it too, in milliseconds. */
const LINGER_MS = 5_000;

/**
 * One HTTP/2 connection.
 *
 * connect-node's Http2SessionManager would open and reopen a session by itself and hides the peer's settings; a pool has
 * to own both, so it stands on node:http2 directly.
 *
 * Dead peers are found by PING: with the first request after a silence, when a request timed out without an answer, and
 * now and then while long streams are silent. All of these are rare enough for gRPC servers, which by default close
 * connections that ping without need more than every five minutes.
 */
export class H2Link implements BaseLink {
  readonly protocol = "h2";
  readonly socket: Socket;
  readonly #session: http2.ClientHttp2Session;
  readonly #origin: string;
  readonly #clock: Clock;
  readonly #limits: PoolLimits;
  #lastReceivedAt: number;
  #pinging = false;
  #closedReason: Error | undefined;
  #goaway = false;
  /** Streams above this one were not looked at by a peer that went away. */
  #lastStreamId = Number.POSITIVE_INFINITY;

  private constructor(
    session: http2.ClientHttp2Session,
    socket: Socket,
    { origin, clock, limits }: H2LinkOptions,
  ) {
    this.#session = session;
    this.socket = socket;
    this.#origin = origin;
    this.#clock = clock;
    this.#limits = limits;
    this.#lastReceivedAt = clock.monotonic();
  }

  /** Speaks the HTTP/2 preface and waits for the peer's settings. Fails when the peer does not speak HTTP/2. */
  static open(socket: Socket, options: H2LinkOptions): Promise<H2Link> {
    const { origin, clock, timeoutMs, events } = options;
    const { promise, resolve, reject } = Promise.withResolvers<H2Link>();
    const session = http2.connect(origin, {
      createConnection: () => socket,
      settings: {
        enablePush: false,
        initialWindowSize: STREAM_WINDOW,
        maxHeaderListSize: MAX_HEADER_BYTES,
      },
    });
    let error: Error | undefined;
    let link: H2Link | undefined;
    const cancelTimer = clock.after(timeoutMs, () =>
      session.destroy(new Error(`the server sent no HTTP/2 settings within ${timeoutMs} ms`)),
    );
    session.on("error", (reason: Error) => {
      error ??= reason;
    });
    session.on("close", () => {
      cancelTimer();
      if (link) {
        link.#closedReason = error;
        events.onClosed(error);
      } else {
        reject(new Error("the server does not speak HTTP/2 there", { cause: error }));
      }
    });
    session.on("goaway", (_code, lastStreamId) => {
      if (link) {
        // A server that shuts down gently says so twice: first with the highest id there is, then with the true one.
        link.#lastStreamId = Math.min(link.#lastStreamId, lastStreamId);
        if (!link.#goaway) {
          link.#goaway = true;
          events.onGoaway();
        }
      }
    });
    session.on("remoteSettings", () => {
      if (link) {
        events.onCapacity();
        return;
      }
      cancelTimer();
      session.setLocalWindowSize(CONNECTION_WINDOW);
      session.unref();
      link = new H2Link(session, socket, options);
      resolve(link);
    });
    return promise;
  }

  get closed(): boolean {
    return this.#goaway || this.#session.closed || this.#session.destroyed;
  }

  capacity(): number {
    const peer = this.#session.remoteSettings.maxConcurrentStreams ?? Number.POSITIVE_INFINITY;
    return this.closed ? 0 : Math.min(peer, this.#limits.maxStreamsPerConnection);
  }

  setBusy(busy: boolean): void {
    if (this.#session.destroyed) {
      return;
    }
    if (busy) {
      this.#session.ref();
    } else {
      this.#session.unref();
    }
  }

  /** Opens a stream. Throws NotSentError when the connection takes none any more. */
  request(
    headers: http2.OutgoingHttpHeaders,
    options?: http2.ClientSessionRequestOptions,
  ): http2.ClientHttp2Stream {
    const bytes = sizeOf(headers);
    if (bytes > MAX_HEADER_BYTES) {
      throw headersTooLarge(this.#origin, bytes, MAX_HEADER_BYTES);
    }
    let stream: http2.ClientHttp2Stream;
    try {
      stream = this.#session.request(headers, options);
    } catch (error) {
      throw this.closed ? new NotSentError(error) : error;
    }
    stream.once("response", () => this.received());
    this.verify("request");
    return stream;
  }

  /** True when the peer has certainly not looked at a request, whose stream has closed without an answer. */
  refused({ id, rstCode }: http2.ClientHttp2Stream): boolean {
    const { NGHTTP2_REFUSED_STREAM } = http2.constants;
    return rstCode === NGHTTP2_REFUSED_STREAM || id === undefined || id > this.#lastStreamId;
  }

  /** A manager for one request through connect-node; `onStream` learns of its stream. */
  manager(onStream: (stream: http2.ClientHttp2Stream) => void): SessionManager {
    return {
      authority: this.#origin,
      request: async (method, path, headers, options) => {
        const stream = this.request({ ...headers, ":method": method, ":path": path }, options);
        onStream(stream);
        return stream;
      },
      notifyResponseByteRead: () => this.received(),
    };
  }

  /** Bytes came in: the peer is alive. */
  received(): void {
    this.#lastReceivedAt = this.#clock.monotonic();
  }

  /** True when the connection is gone, and running requests with it. */
  get broken(): boolean {
    return this.#session.destroyed;
  }

  /** The error of a request that failed with `error`: that of the connection when it is the connection that broke. */
  errorOf(error: unknown): unknown {
    if (!this.#session.destroyed && !this.#session.closed) {
      return error;
    }
    return asConnectError(connectionLost(this.#origin, this.#closedReason ?? error));
  }

  verify(why: "request" | "timeout" | "sweep"): void {
    const silentMs = this.#clock.monotonic() - this.#lastReceivedAt;
    const patienceMs = {
      request: this.#limits.verifyAfterMs,
      timeout: 0,
      sweep: this.#limits.pingIntervalMs,
    }[why];
    if (this.#pinging || this.#session.destroyed || silentMs < patienceMs) {
      return;
    }
    const cancelTimer = this.#clock.after(this.#limits.pingTimeoutMs, () =>
      this.destroy(
        connectionLost(
          this.#origin,
          new Error(`a ping was not answered within ${this.#limits.pingTimeoutMs} ms`),
        ),
      ),
    );
    this.#pinging = this.#session.ping((error) => {
      cancelTimer();
      this.#pinging = false;
      if (!error) {
        this.received();
      }
    });
    if (!this.#pinging) {
      cancelTimer();
    }
  }

  destroy(reason?: Error): void {
    if (reason) {
      this.#session.destroy(reason, http2.constants.NGHTTP2_CANCEL);
    } else {
      this.#session.close();
      const cancelTimer = this.#clock.after(LINGER_MS, () => this.socket.destroy());
      this.socket.once("close", cancelTimer);
    }
  }
}

/** Names and values, which is what nghttp2 bounds. */
function sizeOf(headers: http2.OutgoingHttpHeaders): number {
  let bytes = 0;
  for (const name in headers) {
    const value = headers[name];
    for (const item of Array.isArray(value) ? value : [value]) {
      bytes += name.length + String(item).length;
    }
  }
  return bytes;
}

export interface H2LinkOptions {
  readonly origin: string;
  readonly clock: Clock;
  readonly limits: PoolLimits;
  /** How long the peer may take to send its settings. */
  readonly timeoutMs: number;
  readonly events: LinkEvents;
}
