import type { Socket } from "node:net";
import { Client, Dispatcher, errors } from "undici";
import { NotSentError } from "./errors.ts";
import type { BaseLink, LinkEvents } from "./link.ts";

/** How a request over HTTP/1.1 ended: with a status, or without an answer, and then maybe unsent. */
export type H1Outcome = { readonly status: number } | { readonly error: Error; readonly unsent: boolean };

/** One HTTP/1.1 connection, which carries one request at a time. */
export class H1Link implements BaseLink {
  readonly protocol = "h1";
  readonly #client: Client;
  readonly socket: Socket;

  constructor(socket: Socket, { origin, idleTimeoutMs, events }: H1LinkOptions) {
    this.socket = socket;
    socket.unref();
    let handedOver = false;
    this.#client = new Client(origin, {
      allowH2: false,
      pipelining: 1,
      // Requests carry their own deadlines.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: idleTimeoutMs,
      connect: (_options, callback) => {
        const usable = !handedOver && !socket.destroyed;
        handedOver = true;
        // undici does not notice a connection that it is given before it has returned from asking.
        queueMicrotask(() => {
          if (usable) {
            socket.ref();
            callback(null, socket);
          } else {
            callback(new NotSentError(), null);
          }
        });
      },
    });
    let error: Error | undefined;
    socket.on("error", (reason) => {
      error ??= reason;
    });
    socket.once("close", () => {
      void this.#client.destroy();
      events.onClosed(error);
    });
  }

  get closed(): boolean {
    return this.socket.destroyed || !this.socket.writable || !this.socket.readable;
  }

  capacity(): number {
    return this.closed ? 0 : 1;
  }

  /** undici keeps its sockets referenced exactly while requests run. */
  setBusy(): void {}

  /** HTTP/1.1 has nothing to ask the peer with. */
  verify(): void {}

  dispatch(
    options: Dispatcher.DispatchOptions,
    handler: Dispatcher.DispatchHandler,
    onDone: (outcome: H1Outcome) => void,
  ): boolean {
    return this.#client.dispatch(options, track(handler, onDone));
  }

  /** A dispatcher for one request over this connection. */
  dispatcher(onDone: (outcome: H1Outcome) => void): Dispatcher {
    return new OneRequest(this, onDone);
  }

  destroy(reason?: Error): void {
    void this.#client.destroy(reason ?? null);
    this.socket.destroy();
  }
}

export interface H1LinkOptions {
  readonly origin: string;
  readonly idleTimeoutMs: number;
  readonly events: LinkEvents;
}

class OneRequest extends Dispatcher {
  readonly #link: H1Link;
  readonly #onDone: (outcome: H1Outcome) => void;

  constructor(link: H1Link, onDone: (outcome: H1Outcome) => void) {
    super();
    this.#link = link;
    this.#onDone = onDone;
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    return this.#link.dispatch(options, handler, this.#onDone);
  }
}

/** Passes everything on to `handler` and says when the request has ended. */
function track(
  handler: Dispatcher.DispatchHandler,
  onDone: (outcome: H1Outcome) => void,
): Dispatcher.DispatchHandler {
  let status = 0;
  let started = false;
  // undici decides right after the last callback whether the connection stays open, so the end is told a moment later.
  const done = (outcome: H1Outcome) => queueMicrotask(() => onDone(outcome));
  return {
    onRequestStart: (controller, context) => {
      started = true;
      handler.onRequestStart?.(controller, context);
    },
    onRequestUpgrade: (controller, statusCode, headers, socket) => {
      socket.once("close", () => done({ status: statusCode }));
      handler.onRequestUpgrade?.(controller, statusCode, headers, socket);
    },
    onResponseStarted: () => handler.onResponseStarted?.(),
    onResponseStart: (controller, statusCode, headers, statusMessage) => {
      status = statusCode;
      handler.onResponseStart?.(controller, statusCode, headers, statusMessage);
    },
    onResponseData: (controller, chunk) => handler.onResponseData?.(controller, chunk),
    onResponseEnd: (controller, trailers) => {
      done({ status });
      handler.onResponseEnd?.(controller, trailers);
    },
    onResponseError: (controller, error) => {
      done({ error, unsent: !started && isGone(error) });
      handler.onResponseError?.(controller, error);
    },
    onBodySent: (chunk) => handler.onBodySent?.(chunk),
    onRequestSent: () => handler.onRequestSent?.(),
  };
}

/** The errors of undici, and ours, for a connection that was closed before a request began. */
function isGone(error: Error): boolean {
  return (
    error instanceof NotSentError ||
    error instanceof errors.ClientDestroyedError ||
    error instanceof errors.ClientClosedError
  );
}
