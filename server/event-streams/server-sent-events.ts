import { Code } from "@connectrpc/connect";
import {
  type Clock,
  DomainError,
  type HttpHandler,
  type Logger,
  type NodeRequest,
  type NodeResponse,
  writeChunk,
} from "@toolplane/framework";

/** How long a client may leave unread what was written before it counts as gone. It goes on from there when it is back. */
const STALL_TIMEOUT_MS = 60_000;
/** How soon browsers connect again. */
const RECONNECT_MS = 1_000;

/** A stream of events under a path, for browsers and `curl -N`. */
export interface ServedEvents<News> {
  /** With the stream's id as its first group. */
  readonly path: RegExp;
  /** What is said where there is no such stream. */
  readonly unknown: string;
  /** What a stream is of, such as `run`. */
  readonly noun: string;
  /** Where the stream is, and whether it has ended. Throws NOT_FOUND. */
  last(id: string): Promise<{ readonly lastSequence: bigint; readonly endTime?: object | undefined }>;
  watch(id: string, after: number, signal: AbortSignal): AsyncIterable<News>;
  /** Frames as they are sent; empty: nothing. */
  textOf(news: News): string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** One event: its id, type and data. A kind in camel case is written with hyphens. */
export function eventFrame(kind: string, data: unknown, id?: bigint): string {
  const name = kind.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  // JSON has no line breaks of its own.
  return `${id === undefined ? "" : `id: ${id}\n`}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** The first thing to be sent. */
export const CONNECTED_FRAME = `retry: ${RECONNECT_MS}\n\n`;

/** A comment that keeps proxies from thinking that nothing happens any more. */
export function heartbeatFrame(noun: string): string {
  return `: the ${noun} goes on\n\n`;
}

/**
 * Serves streams as server-sent events: each one's id is its sequence, its type the kind of what happened, its data the
 * event as JSON. Who connects again with the id of the last event goes on after it; after the end the answer is 204, upon
 * which browsers stop connecting.
 */
export function serveEvents<News>(served: ServedEvents<News>): HttpHandler {
  const { path: pattern, noun } = served;
  return async (request, response) => {
    const [path = "", query = ""] = (request.url ?? "").split("?", 2);
    const encoded = pattern.exec(path)?.[1];
    if (encoded === undefined) {
      return false;
    }
    if (request.method !== "GET") {
      response.setHeader("allow", "GET");
      refuse(response, 405, "Events are read with GET.");
      return true;
    }
    const after = positionOf(request, query);
    if (after === undefined) {
      refuse(response, 400, "Last-Event-ID and ?after= take the number of an event, such as 42.");
      return true;
    }
    const id = decode(encoded);
    const last = await lastEvent(served, id);
    if (last === undefined) {
      refuse(response, 404, served.unknown);
    } else if (after > last.sequence) {
      refuse(response, 400, `The ${noun} has ${last.sequence} events: begin after one of them.`);
    } else if (last.isEnd && after === last.sequence) {
      response.statusCode = 204;
      response.end();
    } else {
      await stream(response, served, (signal) => served.watch(id, after, signal));
    }
    return true;
  };
}

/** Where to begin; undefined where what was sent is no number. A browser that connects again knows best. */
function positionOf(request: NodeRequest, query: string): number | undefined {
  const header = request.headers["last-event-id"];
  const text = typeof header === "string" && header !== "" ? header : new URLSearchParams(query).get("after");
  return text === null || text === "" ? 0 : /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function decode(id: string): string {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

/** Undefined: there is no such stream. */
async function lastEvent(served: Pick<ServedEvents<never>, "last">, id: string) {
  try {
    const { lastSequence, endTime } = await served.last(id);
    return { sequence: Number(lastSequence), isEnd: endTime !== undefined };
  } catch (error) {
    if (error instanceof DomainError && error.init.code === Code.NotFound) {
      return undefined;
    }
    throw error;
  }
}

async function stream<News>(
  response: NodeResponse,
  { textOf, clock, logger }: Pick<ServedEvents<News>, "textOf" | "clock" | "logger">,
  watch: (signal: AbortSignal) => AsyncIterable<News>,
): Promise<void> {
  const left = new AbortController();
  const leave = () => left.abort();
  response.on("close", leave);
  response.statusCode = 200;
  response.setHeader("content-type", "text/event-stream; charset=utf-8");
  response.setHeader("cache-control", "no-store");
  // Some proxies hold back what they think is a page.
  response.setHeader("x-accel-buffering", "no");
  try {
    for await (const news of watch(left.signal)) {
      // What is written to a response that is closed is never drained.
      if (left.signal.aborted) {
        return;
      }
      if (!writeChunk(response, Buffer.from(textOf(news)))) {
        await drained(response, clock, left.signal);
      }
    }
  } catch (error) {
    // The client connects again and goes on.
    logger.debug({ err: error }, "a stream of server-sent events ended early");
  } finally {
    response.off("close", leave);
    response.end();
  }
}

/** Waits until the client has taken what was written, or has left; one that takes nothing for long is cut off. */
function drained(response: NodeResponse, clock: Clock, left: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const settle = () => {
      cancel();
      response.off("drain", settle);
      left.removeEventListener("abort", settle);
      resolve();
    };
    const cancel = clock.after(STALL_TIMEOUT_MS, () => response.destroy());
    response.on("drain", settle);
    left.addEventListener("abort", settle);
    if (left.aborted) {
      settle();
    }
  });
}

function refuse(response: NodeResponse, status: number, text: string): void {
  const body = Buffer.from(`${text}\n`);
  response.statusCode = status;
  response.setHeader("content-type", "text/plain; charset=utf-8");
  response.setHeader("cache-control", "no-store");
  response.setHeader("content-length", body.byteLength);
  response.end(body);
}
