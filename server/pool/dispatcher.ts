import { Dispatcher } from "undici";
import type { Broker, Lease } from "./broker.ts";
import type { Outcome } from "./connection.ts";
import { connectionLost, poolClosed } from "./errors.ts";
import type { H1Outcome } from "./h1-link.ts";
import { isUnavailable } from "./outcome.ts";
import { createRoute } from "./route.ts";

/** The way into the pool for undici: `request(url, { dispatcher })` and `fetch`. It is closed with the pool. */
export class PoolDispatcher extends Dispatcher {
  readonly #broker: Broker;

  constructor(broker: Broker) {
    super();
    this.#broker = broker;
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    if (!options.origin) {
      throw new TypeError("a pooled request needs an origin");
    }
    const route = createRoute(String(options.origin), "h1");
    const controller = new QueuedController();
    // undici tells a handler about its controller as soon as it can be aborted, which is now: while it waits.
    handler.onRequestStart?.(controller, {});
    void this.#broker.acquire(route, controller.waiting).then(
      (lease) => this.#send(lease, options, handler, controller, route.origin),
      (error: unknown) => handler.onResponseError?.(controller, toError(error)),
    );
    return true;
  }

  #send(
    { link, release }: Lease,
    options: Dispatcher.DispatchOptions,
    handler: Dispatcher.DispatchHandler,
    controller: QueuedController,
    origin: string,
  ): void {
    if (link.protocol !== "h1") {
      release("neutral");
      handler.onResponseError?.(controller, poolClosed(origin));
      return;
    }
    const once: Dispatcher.DispatchHandler = {
      onRequestStart: (inner) => controller.attach(inner),
      onRequestUpgrade: (_inner, ...rest) => handler.onRequestUpgrade?.(controller, ...rest),
      onResponseStarted: () => handler.onResponseStarted?.(),
      onResponseStart: (_inner, ...rest) => handler.onResponseStart?.(controller, ...rest),
      onResponseData: (_inner, chunk) => handler.onResponseData?.(controller, chunk),
      onResponseEnd: (_inner, trailers) => handler.onResponseEnd?.(controller, trailers),
      onResponseError: (_inner, error) =>
        handler.onResponseError?.(controller, controller.aborted ? error : connectionLost(origin, error)),
      onBodySent: (chunk) => handler.onBodySent?.(chunk),
      onRequestSent: () => handler.onRequestSent?.(),
    };
    link.dispatch(options, once, (outcome) => release(outcomeOf(outcome, controller.aborted)));
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

/** A controller that works before there is a connection. */
class QueuedController implements Dispatcher.DispatchController {
  readonly #waiting = new AbortController();
  #inner: Dispatcher.DispatchController | undefined;
  #paused = false;
  #reason: Error | null = null;

  /** Aborted when the request is. */
  get waiting(): AbortSignal {
    return this.#waiting.signal;
  }

  get aborted(): boolean {
    return this.#reason !== null;
  }

  get paused(): boolean {
    return this.#inner?.paused ?? this.#paused;
  }

  get reason(): Error | null {
    return this.#reason;
  }

  get rawHeaders(): Buffer[] | null {
    const raw = this.#inner?.rawHeaders;
    return Array.isArray(raw) ? raw.map((part) => Buffer.from(part)) : null;
  }

  get rawTrailers(): Buffer[] | null {
    const raw = this.#inner?.rawTrailers;
    return Array.isArray(raw) ? raw.map((part) => Buffer.from(part)) : null;
  }

  attach(inner: Dispatcher.DispatchController): void {
    this.#inner = inner;
    if (this.#reason) {
      inner.abort(this.#reason);
    } else if (this.#paused) {
      inner.pause();
    }
  }

  abort(reason: Error): void {
    this.#reason ??= reason;
    this.#waiting.abort(reason);
    this.#inner?.abort(reason);
  }

  pause(): void {
    this.#paused = true;
    this.#inner?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#inner?.resume();
  }
}

function outcomeOf(outcome: H1Outcome, aborted: boolean): Outcome {
  if ("status" in outcome) {
    return isUnavailable(outcome.status) ? "failed" : "ok";
  }
  return aborted ? "neutral" : "failed";
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
