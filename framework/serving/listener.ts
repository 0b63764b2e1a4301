import { once } from "node:events";
import { createServer as createHttp1Server } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Session } from "node:http2";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { Clock } from "../clock.ts";
import type { Logger } from "../logging.ts";
import type { ServeLimits } from "./limits.ts";
import { startListening } from "./listen-address.ts";
import type { NodeHandler } from "./node-http.ts";
import { sniffProtocol } from "./sniff.ts";

/** What TLS needs, in PEM. */
export interface TlsOptions {
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
  /** The authorities that clients' certificates must come from. Default: clients need no certificate. */
  readonly clientCa?: string | Buffer;
}

export interface ListenerOptions {
  readonly host: string;
  readonly port: number;
  readonly tls: TlsOptions | undefined;
  readonly limits: ServeLimits;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly onRequest: NodeHandler;
}

/** One port on which HTTP/1.1 and HTTP/2 are spoken. */
export interface Listener {
  readonly address: AddressInfo;
  /**
   * Accepts no more connections and closes those that are idle. The others are told to go away: HTTP/2 clients by a
   * GOAWAY. It names the last stream that is answered, so that clients know which requests they may send elsewhere;
   * nghttp2 takes no streams after any GOAWAY, which rules out the notice in advance of RFC 9113, section 6.8.
   */
  drain(): void;
  /** Resolves when every connection is closed. */
  closed(): Promise<void>;
  /** Closes every connection at once. */
  destroy(): void;
}

/** How long a client may take to close its side of a connection that the server has ended, in milliseconds. */
const goodbyeMs = 2_000;
/** The same, when everything was answered and the answers are on their way. */
const answeredMs = 500;

export async function listen(options: ListenerOptions): Promise<Listener> {
  const { limits, logger, clock, tls } = options;
  const sockets = new Set<Socket>();
  /** Connections that speak HTTP/2, by what ends them when their streams have ended. */
  const sessions = new Map<ServerHttp2Session, () => void>();
  /** Connections of which it is not known yet what they speak. */
  const undecided = new Set<Socket>();
  let draining = false;

  const http1 = createHttp1Server(
    {
      maxHeaderSize: limits.maxHeaderBytes,
      headersTimeout: limits.headersTimeoutMs,
      // Bodies are timed where it is known whether they are streams.
      requestTimeout: 0,
      keepAliveTimeout: limits.idleTimeoutMs,
      connectionsCheckingInterval: Math.min(1_000, Math.ceil(limits.headersTimeoutMs / 2)),
    },
    options.onRequest,
  );
  // An HTTP server checks its timeouts only once it listens, which this one leaves to another.
  http1.emit("listening");

  const http2 = createHttp2Server(
    {
      settings: {
        maxConcurrentStreams: limits.maxConcurrentStreams,
        maxHeaderListSize: limits.maxHeaderBytes,
        enablePush: false,
      },
      // Node closes connections that exceed these, and those that flood with pings, settings or continuations.
      streamResetBurst: limits.resetBurst,
      streamResetRate: limits.resetsPerSecond,
    },
    options.onRequest,
  );
  http2.on("sessionError", (error) => logger.debug({ err: error }, "an HTTP/2 connection failed"));

  function accept(socket: Socket, protocol: "h1" | "h2") {
    undecided.delete(socket);
    if (protocol === "h2") {
      // An HTTP/2 session does not notice by itself that the client has ended the connection.
      socket.allowHalfOpen = false;
      // The session is made and announced while the event is emitted.
      http2.once("session", (session) => {
        const endSession = superviseSession(session, socket, options);
        sessions.set(session, endSession);
        session.once("close", () => sessions.delete(session));
        if (draining) {
          endSession();
        }
      });
      http2.emit("connection", socket);
    } else {
      http1.emit("connection", socket);
      // Sniffing leaves the socket paused. HTTP/2 reads from the handle below it.
      socket.resume();
    }
  }
  function track(socket: Socket) {
    sockets.add(socket);
    socket.once("close", () => {
      sockets.delete(socket);
      undecided.delete(socket);
    });
    socket.on("error", (error) => logger.debug({ err: error }, "a connection failed"));
  }

  const shared = { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 };
  const server =
    tls === undefined
      ? createTcpServer(shared, (socket) => {
          track(socket);
          undecided.add(socket);
          sniffProtocol(socket, clock, limits.headersTimeoutMs, (protocol) => accept(socket, protocol));
        })
      : createTlsServer({
          ...shared,
          cert: tls.cert,
          key: tls.key,
          ...(tls.clientCa === undefined
            ? {}
            : { ca: tls.clientCa, requestCert: true, rejectUnauthorized: true }),
          ALPNProtocols: ["h2", "http/1.1"],
          minVersion: "TLSv1.2",
          handshakeTimeout: limits.headersTimeoutMs,
        });
  if (tls !== undefined) {
    server.on("connection", track);
    server.on("secureConnection", (socket) => accept(socket, socket.alpnProtocol === "h2" ? "h2" : "h1"));
    server.on("tlsClientError", (error, socket) => {
      logger.debug({ err: error }, "a TLS handshake failed");
      // Node closes the connection after most failures, but not after a timeout.
      socket.destroy();
    });
  }
  server.maxConnections = limits.maxConnections;
  let lastDropLogged = Number.NEGATIVE_INFINITY;
  server.on("drop", () => {
    if (clock.monotonic() - lastDropLogged >= 1_000) {
      lastDropLogged = clock.monotonic();
      logger.warn({ maxConnections: limits.maxConnections }, "too many connections: refusing new ones");
    }
  });

  await startListening(server, options.host, options.port);
  const closed = once(server, "close");

  return {
    // A TCP server's address is always an object.
    address: server.address() as AddressInfo,
    drain() {
      draining = true;
      server.close();
      http1.close();
      for (const endSession of sessions.values()) {
        endSession();
      }
      for (const socket of undecided) {
        socket.destroy();
      }
    },
    async closed() {
      await closed;
    },
    destroy() {
      for (const socket of sockets) {
        socket.destroy();
      }
    },
  };
}

/**
 * Closes an HTTP/2 connection that has no streams for too long. Activity below that, such as pings or half a header
 * block, does not count.
 *
 * What is returned closes it as soon as its streams have ended.
 */
function superviseSession(
  session: ServerHttp2Session,
  socket: Socket,
  { limits, clock, logger }: ListenerOptions,
): () => void {
  let open = 0;
  let cancel = clock.after(limits.headersTimeoutMs, () => {
    logger.debug("an HTTP/2 connection did not introduce itself in time");
    socket.destroy();
  });
  function awaitStream() {
    cancel();
    cancel = clock.after(limits.idleTimeoutMs, () => {
      session.close();
      // A session waits for a header block that is never completed, and for the client to close its side.
      cancel = clock.after(goodbyeMs, () => socket.destroy());
    });
  }
  /** A client that never reads to the end of an answer, as when its user has lost interest, never closes its side. */
  function awaitGoodbye() {
    cancel();
    const wait = () => {
      cancel = clock.after(answeredMs, () => socket.destroy());
    };
    if (socket.writableFinished) {
      wait();
    } else {
      socket.once("finish", wait);
    }
  }
  session.once("remoteSettings", () => {
    if (open === 0 && !session.closed) {
      awaitStream();
    }
  });
  session.on("stream", (stream) => {
    open += 1;
    cancel();
    stream.once("close", () => {
      open -= 1;
      if (open === 0) {
        session.closed ? awaitGoodbye() : awaitStream();
      }
    });
  });
  socket.once("close", () => cancel());
  return () => {
    session.close();
    if (open === 0) {
      awaitGoodbye();
    }
  };
}
