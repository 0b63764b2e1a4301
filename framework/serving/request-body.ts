import { constants } from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Clock } from "../clock.ts";
import type { DeadlineQueue, Waiting } from "./deadline-queue.ts";
import { isGone, type NodeRequest, type NodeResponse } from "./node-http.ts";

/** How long a client may go on sending a body that nobody reads, after it was answered, in milliseconds. */
const lingerMs = 2_000;

/** Whether the client has sent everything. Over HTTP/2, Node counts a body as complete when it has been read. */
function isComplete(request: NodeRequest): boolean {
  return request.complete || ("stream" in request && request.stream.endAfterHeaders);
}

/** Calls back when a body that should end has not ended in time. */
export function limitBody(
  request: NodeRequest,
  response: NodeResponse,
  clock: Clock,
  timeoutMs: number,
  onTimeout: () => void,
): void {
  if (isComplete(request)) {
    return;
  }
  const cancel = clock.after(timeoutMs, () => {
    if (!isComplete(request)) {
      onTimeout();
    }
  });
  request.once("end", cancel);
  response.once("close", cancel);
}

/** A client that was answered before it had sent everything is told to stop, and given a moment to do so. */
export function endUnreadBody(request: NodeRequest, response: NodeResponse, clock: Clock): void {
  if (!response.writableEnded || isComplete(request) || isGone(response)) {
    return;
  }
  if ("stream" in request) {
    const { stream } = request;
    // Node discards trailers that it has not sent when a stream is closed.
    stream.once("wantTrailers", () => setImmediate(() => stream.close(constants.NGHTTP2_NO_ERROR)));
    return;
  }
  request.resume();
  const cancel = clock.after(lingerMs, () => request.socket.destroy());
  request.once("end", cancel);
  request.once("close", cancel);
}

type Chunk = IteratorResult<Uint8Array, undefined>;

/**
 * The chunks of a request's body, once, until somebody stops their reading. What is left of it then stays unread, and the
 * request open: to destroy it would take the response with it.
 *
 * Node's own iterator does the same for streams of all kinds, with a dozen listeners a request.
 */
export class RequestBody implements AsyncIterableIterator<Uint8Array, undefined> {
  readonly #request: NodeRequest;
  #waiting:
    | { readonly resolve: (chunk: Chunk) => void; readonly reject: (reason: unknown) => void }
    | undefined;
  #state: "unread" | "reading" | "over" = "unread";
  #limit: { readonly queue: DeadlineQueue; readonly waiting: Waiting } | undefined;
  #failure: { readonly reason: unknown } | undefined;

  constructor(request: NodeRequest) {
    this.#request = request;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Chunk> {
    if (this.#state === "unread") {
      this.#begin();
    }
    if (this.#state === "over") {
      return this.#failure === undefined ? Promise.resolve(end) : Promise.reject(this.#failure.reason);
    }
    const value: Uint8Array | null = this.#request.read();
    if (value !== null) {
      return Promise.resolve({ done: false, value });
    }
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  return(): Promise<Chunk> {
    this.close();
    return Promise.resolve(end);
  }

  /** Calls back when the body has not ended in time, unless reading is over by then. */
  limit(queue: DeadlineQueue, onTimeout: () => void): void {
    const request = this.#request;
    if (!isComplete(request)) {
      const waiting = queue.add(() => {
        if (!isComplete(request)) {
          onTimeout();
        }
      });
      this.#limit = { queue, waiting };
    }
  }

  /** Nobody reads on. */
  close(): void {
    this.#finish(undefined);
  }

  /** Makes whoever reads fail with the reason. */
  stop(reason: unknown): void {
    this.#finish({ reason });
  }

  #begin(): void {
    const request = this.#request;
    this.#state = "reading";
    if (request.readableEnded) {
      this.#finish(undefined);
    } else if (request.destroyed) {
      this.#finish({ reason: request.errored ?? interrupted() });
    } else {
      request.on("readable", this.#onReadable);
      request.on("end", this.#onEnd);
      request.on("error", this.#onError);
      request.on("close", this.#onClose);
    }
  }

  #finish(failure: { readonly reason: unknown } | undefined): void {
    if (this.#state === "over") {
      return;
    }
    if (this.#state === "reading") {
      this.#request.off("readable", this.#onReadable);
      this.#request.off("end", this.#onEnd);
      this.#request.off("close", this.#onClose);
    }
    this.#limit?.queue.remove(this.#limit.waiting);
    this.#state = "over";
    this.#failure = failure;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (failure === undefined) {
      waiting?.resolve(end);
    } else {
      waiting?.reject(failure.reason);
    }
  }

  readonly #onReadable = (): void => {
    const waiting = this.#waiting;
    const value: Uint8Array | null = waiting === undefined ? null : this.#request.read();
    if (value !== null) {
      this.#waiting = undefined;
      waiting?.resolve({ done: false, value });
    }
  };

  readonly #onEnd = (): void => this.#finish(undefined);
  readonly #onError = (reason: Error): void => this.#finish({ reason });
  readonly #onClose = (): void => this.#finish({ reason: interrupted() });
}

const end: Chunk = { done: true, value: undefined };

/** The client has left before it had sent everything. */
function interrupted(): ConnectError {
  return new ConnectError("the request ended before its body did", Code.Canceled);
}
