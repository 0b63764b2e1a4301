import { Readable } from "node:stream";
import { ConnectError } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import { Dispatcher, errors } from "undici";
import type { Broker, Lease } from "./broker.ts";
import { type DispatchedRequest, readRequest } from "./dispatched-request.ts";
import { asConnectError, connectionLost, refusesCalls } from "./errors.ts";
import type { H1Link } from "./h1-link.ts";
import { exchangeOverH2 } from "./h2-exchange.ts";
import { isUnavailable, outcomeOf } from "./outcome.ts";
import { QueuedController } from "./queued-controller.ts";
import { createHttpRoute, createRoute, type Route } from "./route.ts";

/** How often a request is sent that the server refuses without having looked at it. */
const MAX_ATTEMPTS = 3;

/**
 * The way into the pool for undici: `request(url, { dispatcher })` and `fetch`. It is closed with the pool.
 *
 * Over https, requests go over HTTP/2 where the server speaks it, and share its connections with the calls of Connect and
 * gRPC-Web; over cleartext and for upgrades they go over HTTP/1.1. Requests that the server certainly did not look at are
 * sent again, twice at most. Neither version has timeouts but those that a request asks for.
 */
export class PoolDispatcher extends Dispatcher {
  readonly #broker: Broker;
  readonly #clock: Clock;

  constructor(broker: Broker, clock: Clock) {
    super();
    this.#broker = broker;
    this.#clock = clock;
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const { origin, upgrade, method, body } = options;
    if (!origin) {
      throw new TypeError("a pooled request needs an origin");
    }
    const controller = new QueuedController();
    if (body instanceof Readable) {
      // Until it is sent nobody else listens.
      body.on("error", (error) => controller.abort(error));
    }
    try {
      const upgrades = Boolean(upgrade) || method === "CONNECT";
      const route = upgrades ? createRoute(String(origin), "h1") : createHttpRoute(String(origin));
      // undici tells a handler about its controller as soon as it can be aborted, which is now: while it waits.
      handler.onRequestStart?.(controller, {});
      void this.#send(route, options, handler, controller);
    } catch (error) {
      fail(handler, controller, error);
    }
    return true;
  }

  async #send(
    route: Route,
    options: Dispatcher.DispatchOptions,
    handler: Dispatcher.DispatchHandler,
    controller: QueuedController,
  ): Promise<void> {
    const { body } = options;
    let request: DispatchedRequest | undefined;
    try {
      for (let attempt = 1; ; attempt++) {
        const lease = await this.#broker.acquire(route, controller.signal);
        const { link } = lease;
        let taken: boolean;
        if (link.protocol === "h1") {
          taken = await exchangeOverH1(link, lease, options, handler, controller);
        } else {
          request ??= readOrRelease(options, lease);
          const answer = await exchangeOverH2({
            ...{ link, lease, request, handler, controller },
            origin: route.origin,
            clock: this.#clock,
          });
          taken = answer === "answered";
        }
        if (taken) {
          break;
        }
        if (attempt === MAX_ATTEMPTS || !canRepeat(request)) {
          throw refusesCalls(route.origin);
        }
      }
    } catch (error) {
      fail(handler, controller, controller.reason ?? translate(route.origin, error));
    } finally {
      if (body instanceof Readable) {
        body.destroy();
      }
      if (request?.body && "cancel" in request.body) {
        request.body.cancel();
      }
    }
  }

  override close(): Promise<void>;
  override close(callback: () => void): void;
  override close(callback?: () => void): Promise<void> | undefined {
    callback?.();
    return callback ? undefined : Promise.resolve();
  }

  override destroy(): Promise<void> {
    return Promise.resolve();
  }
}

/** False: the connection was gone before anything was sent. */
function exchangeOverH1(
  link: H1Link,
  { release }: Lease,
  options: Dispatcher.DispatchOptions,
  handler: Dispatcher.DispatchHandler,
  controller: QueuedController,
): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const once: Dispatcher.DispatchHandler = {
    onRequestStart: (inner) => controller.attach(inner),
    onRequestUpgrade: (_inner, ...rest) => handler.onRequestUpgrade?.(controller, ...rest),
    onResponseStarted: () => handler.onResponseStarted?.(),
    onResponseStart: (inner, ...rest) => {
      controller.rawHeaders = inner.rawHeaders ?? null;
      handler.onResponseStart?.(controller, ...rest);
    },
    onResponseData: (_inner, chunk) => handler.onResponseData?.(controller, chunk),
    onResponseEnd: (inner, trailers) => {
      controller.rawTrailers = inner.rawTrailers ?? null;
      handler.onResponseEnd?.(controller, trailers);
    },
    onResponseError: () => undefined,
    onBodySent: (chunk) => handler.onBodySent?.(chunk),
    onRequestSent: () => handler.onRequestSent?.(),
  };
  link.dispatch(options, once, (outcome) => {
    const ok = "status" in outcome && !isUnavailable(outcome.status);
    release(outcomeOf(ok, controller.signal));
    if ("status" in outcome) {
      resolve(true);
    } else if (outcome.unsent) {
      resolve(false);
    } else {
      reject(outcome.error);
    }
  });
  return promise;
}

function readOrRelease(options: Dispatcher.DispatchOptions, lease: Lease): DispatchedRequest {
  try {
    return readRequest(options);
  } catch (error) {
    lease.release("neutral");
    throw error;
  }
}

/** Requests that went to HTTP/1.1 only were not begun. */
function canRepeat(request: DispatchedRequest | undefined): boolean {
  const body = request?.body;
  return !body || body instanceof Uint8Array || body.replayable();
}

/** Errors that are about the request stay; everything else means that the connection broke. */
function translate(origin: string, error: unknown): unknown {
  const aboutRequest =
    error instanceof ConnectError ||
    error instanceof DomainError ||
    error instanceof errors.InvalidArgumentError ||
    error instanceof errors.NotSupportedError ||
    error instanceof errors.RequestContentLengthMismatchError ||
    error instanceof errors.HeadersTimeoutError ||
    error instanceof errors.BodyTimeoutError;
  return asConnectError(aboutRequest ? error : connectionLost(origin, error));
}

function fail(
  handler: Dispatcher.DispatchHandler,
  controller: Dispatcher.DispatchController,
  error: unknown,
): void {
  try {
    handler.onResponseError?.(controller, error instanceof Error ? error : new Error(String(error)));
  } catch {
    // There is nobody left to tell.
  }
}
