import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import type { Clock } from "../clock.ts";
import { isGone, type NodeResponse, writeChunk, writeHead } from "./node-http.ts";
import type { StreamObserver } from "./stream-meter.ts";

export interface WriteOptions {
  readonly clock: Clock;
  /** How long the client may leave what was written unread before it counts as gone, in milliseconds. */
  readonly stallTimeoutMs: number;
  /** Told about what is written, where there may be several messages. */
  readonly stream?: StreamObserver | undefined;
}

/**
 * Writes what a Connect handler answers. The next message is asked for when the client has taken the one before, so
 * that a slow reader slows the handler down and memory stays bounded.
 *
 * Resolves when everything is written or the client is gone; the handler's iteration is ended in either case.
 */
export async function writeResponse(
  answer: UniversalServerResponse,
  response: NodeResponse,
  options: WriteOptions,
): Promise<void> {
  const chunks = answer.body?.[Symbol.asyncIterator]();
  try {
    // Headers follow the first message: until then a handler may set some.
    let chunk = await chunks?.next();
    if (isGone(response)) {
      return;
    }
    // Written out even where no message follows: else Node's HTTP/2 ends the stream with them, without trailers.
    writeHead(response, answer.status, answer.header ?? new Headers());
    if (chunk?.done === false && isWhole(answer, chunk.value)) {
      response.end(chunk.value);
      return;
    }
    if (options.stream === undefined && chunk?.done === false) {
      // One message: together with the end it takes one write instead of two.
      const { value } = chunk;
      chunk = await chunks?.next();
      if (isGone(response)) {
        return;
      }
      if (chunk?.done !== false) {
        endWith(response, answer.trailer, value);
        return;
      }
      writeChunk(response, value);
    }
    while (chunk?.done === false) {
      const taken = writeChunk(response, chunk.value);
      options.stream?.written(chunk.value);
      if (!taken && !(await drained(response, options))) {
        return;
      }
      chunk = await chunks?.next();
      if (isGone(response)) {
        return;
      }
    }
    endWith(response, answer.trailer, undefined);
  } finally {
    await chunks?.return?.();
  }
}

function endWith(response: NodeResponse, trailer: Headers | undefined, last: Uint8Array | undefined): void {
  const trailers = Object.fromEntries(trailer ?? []);
  if (Object.keys(trailers).length > 0) {
    response.addTrailers(trailers);
  }
  if (last === undefined) {
    response.end();
  } else {
    response.end(last);
  }
}

/** A unary Connect answer is one chunk of known length: it fits into one write together with its headers. */
function isWhole(answer: UniversalServerResponse, chunk: Uint8Array): boolean {
  return answer.header?.get("content-length") === String(chunk.byteLength);
}

/** Waits until the client has taken what was written; false when it is gone, or has stalled and was cut off. */
function drained(response: NodeResponse, { clock, stallTimeoutMs, stream }: WriteOptions): Promise<boolean> {
  stream?.stalled();
  return new Promise((resolve) => {
    function settle(taken: boolean) {
      cancel();
      response.off("drain", onDrain);
      response.off("close", onClose);
      stream?.resumed();
      resolve(taken);
    }
    const onDrain = () => settle(true);
    const onClose = () => settle(false);
    const cancel = clock.after(stallTimeoutMs, () => {
      response.destroy();
      settle(false);
    });
    response.on("drain", onDrain);
    response.on("close", onClose);
  });
}
