import http2 from "node:http2";
import { type Clock, MAX_TIMER_MS } from "@toolplane/framework";
import { type Dispatcher, errors } from "undici";
import type { Lease } from "./broker.ts";
import type { DispatchedRequest } from "./dispatched-request.ts";
import { NotSentError, requestReset } from "./errors.ts";
import type { H2Link } from "./h2-link.ts";
import { isUnavailable, outcomeOf, timedOut } from "./outcome.ts";
import type { QueuedController } from "./queued-controller.ts";

export interface H2ExchangeOptions {
  readonly link: H2Link;
  readonly lease: Lease;
  readonly origin: string;
  readonly request: DispatchedRequest;
  /** Told of everything but the start and errors. */
  readonly handler: Dispatcher.DispatchHandler;
  readonly controller: QueuedController;
  readonly clock: Clock;
}

/**
 * Sends a request of undici over HTTP/2 and tells its handler about the answer as it comes. `refused`: the server did not
 * look at the request. Rejects when the request fails otherwise, and with the reason when it is aborted.
 */
export function exchangeOverH2(options: H2ExchangeOptions): Promise<"answered" | "refused"> {
  const { link, lease, origin, request, handler, controller, clock } = options;
  const { promise, resolve, reject } = Promise.withResolvers<"answered" | "refused">();
  let stream: http2.ClientHttp2Stream;
  try {
    stream = link.request(request.headers, { endStream: request.body === undefined });
  } catch (error) {
    lease.release("neutral");
    if (error instanceof NotSentError) {
      resolve("refused");
    } else {
      reject(error);
    }
    return promise;
  }
  let status: number | undefined;
  let trailers: http2.IncomingHttpHeaders = {};
  let failed: Error | undefined;
  let complete = false;
  let over = false;

  // Node ends the body alike when it is complete and when the server resets the stream with NO_ERROR halfway. Only when
  // the end comes in can they be told apart: by whether the stream has been closed.
  const push = stream.push;
  stream.push = (chunk, encoding) => {
    complete ||= chunk === null && !stream.closed;
    return push.call(stream, chunk, encoding);
  };

  const timer = createTimer(clock);
  const stop = () => {
    over = true;
    timer.stop();
  };
  const release = () => {
    const ok = complete && status !== undefined && !isUnavailable(status);
    lease.release(outcomeOf(ok, controller.signal));
  };
  const abort = (reason: unknown) => {
    if (!over) {
      stop();
      reject(reason);
    }
    stream.close(http2.constants.NGHTTP2_CANCEL);
    // Whoever does not read on still has to let the stream end.
    stream.resume();
    if (
      status === undefined &&
      (reason instanceof errors.HeadersTimeoutError || timedOut(controller.signal))
    ) {
      link.verify("timeout");
    }
  };
  /** It is us who cannot go on. */
  const giveUp = (error: unknown) =>
    controller.abort(error instanceof Error ? error : new Error(String(error)));
  /** A handler that throws has no use for the rest. */
  const tell = (callback: () => void) => {
    try {
      if (!over) {
        callback();
      }
    } catch (error) {
      giveUp(error);
    }
  };
  const awaitBody = () =>
    timer.start(request.bodyTimeoutMs, () =>
      abort(new errors.BodyTimeoutError(`no data came for ${request.bodyTimeoutMs} ms`)),
    );

  stream.on("headers", (headers, _flags, raw?: string[]) => {
    controller.rawHeaders = toRaw(raw);
    tell(() => handler.onResponseStart?.(controller, Number(headers[":status"]), toRecord(headers), ""));
  });
  stream.on("response", (headers, _flags, raw?: string[]) => {
    const final = Number(headers[":status"]);
    status = final;
    if (over) {
      return;
    }
    controller.rawHeaders = toRaw(raw);
    awaitBody();
    tell(() => handler.onResponseStarted?.());
    tell(() => handler.onResponseStart?.(controller, final, toRecord(headers), ""));
    stream.on("data", (chunk: Buffer) => {
      link.received();
      if (!over) {
        awaitBody();
        tell(() => handler.onResponseData?.(controller, chunk));
      }
    });
  });
  stream.on("trailers", (headers, _flags, raw?: string[]) => {
    trailers = headers;
    controller.rawTrailers = toRaw(raw);
  });
  stream.on("end", () => {
    if (over || !complete || status === undefined) {
      return; // Something broke: the close tells.
    }
    stop();
    if (stream.writableFinished) {
      release();
    } else {
      // The server has answered and wants no more of the request.
      stream.close(http2.constants.NGHTTP2_CANCEL);
    }
    try {
      handler.onResponseEnd?.(controller, toRecord(trailers));
      resolve("answered");
    } catch (error) {
      giveUp(error);
      reject(error);
    }
  });
  stream.on("error", (error: Error) => {
    failed = error;
  });
  stream.on("close", () => {
    release();
    if (over) {
      return;
    }
    stop();
    if (status === undefined && link.refused(stream)) {
      resolve("refused");
    } else {
      reject(link.broken ? link.errorOf(failed) : requestReset(origin, stream.rstCode ?? 0, failed));
    }
  });

  timer.start(request.headersTimeoutMs, () =>
    abort(new errors.HeadersTimeoutError(`no answer came for ${request.headersTimeoutMs} ms`)),
  );
  controller.attach({
    abort,
    pause() {
      // The server cannot send what is not read.
      if (status !== undefined) {
        timer.stop();
      }
      stream.pause();
    },
    resume() {
      // Before the answer nobody listens to its body.
      if (status !== undefined && !over) {
        awaitBody();
        stream.resume();
      }
    },
  });
  void sendBody(stream, request, {
    onBodySent: (chunk) => tell(() => handler.onBodySent?.(chunk)),
    onRequestSent: () => tell(() => handler.onRequestSent?.()),
    onFailed: giveUp,
  });
  return promise;
}

interface BodyEvents {
  onBodySent(chunk: Buffer): void;
  onRequestSent(): void;
  onFailed(reason: unknown): void;
}

/** Sends the body no faster than the server takes it. */
async function sendBody(
  stream: http2.ClientHttp2Stream,
  { body, headers }: DispatchedRequest,
  { onBodySent, onRequestSent, onFailed }: BodyEvents,
): Promise<void> {
  if (body === undefined || body instanceof Uint8Array) {
    if (body) {
      stream.end(body);
      onBodySent(Buffer.from(body.buffer, body.byteOffset, body.byteLength));
    }
    onRequestSent();
    return;
  }
  const announced = headers["content-length"] === undefined ? undefined : Number(headers["content-length"]);
  const chunks = body.body[Symbol.asyncIterator]();
  let sent = 0;
  try {
    for (;;) {
      const { done, value } = await chunks.next();
      if (stream.closed || stream.destroyed) {
        return;
      }
      if (done) {
        break;
      }
      sent += value.byteLength;
      if (announced !== undefined && sent > announced) {
        throw new errors.RequestContentLengthMismatchError();
      }
      const flowing = stream.write(value);
      onBodySent(Buffer.from(value.buffer, value.byteOffset, value.byteLength));
      if (!flowing) {
        await drained(stream);
      }
    }
    if (announced !== undefined && sent < announced) {
      throw new errors.RequestContentLengthMismatchError();
    }
  } catch (error) {
    onFailed(error);
    return;
  }
  stream.end();
  onRequestSent();
}

function drained(stream: http2.ClientHttp2Stream): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      stream.off("drain", done).off("close", done);
      resolve();
    };
    stream.on("drain", done).on("close", done);
  });
}

/** One timeout at a time; 0 is none. */
function createTimer(clock: Clock): { start(ms: number, callback: () => void): void; stop(): void } {
  let cancel: (() => void) | undefined;
  const stop = () => {
    cancel?.();
    cancel = undefined;
  };
  return {
    start(ms, callback) {
      stop();
      if (ms > 0) {
        cancel = clock.after(Math.min(ms, MAX_TIMER_MS), callback);
      }
    },
    stop,
  };
}

/** Headers or trailers in the form that undici's handlers know, without HTTP/2's pseudo-headers. */
function toRecord(headers: http2.IncomingHttpHeaders): Record<string, string | string[]> {
  const record: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !name.startsWith(":")) {
      record[name] = value;
    }
  }
  return record;
}

/** Names and values in turn, as they came. */
function toRaw(raw: readonly string[] | undefined): Buffer[] | null {
  if (!raw) {
    return null;
  }
  const result: Buffer[] = [];
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const [name, value] = [raw[index], raw[index + 1]];
    if (name !== undefined && value !== undefined && !name.startsWith(":")) {
      result.push(Buffer.from(name, "latin1"), Buffer.from(value, "latin1"));
    }
  }
  return result;
}
