import { toJson } from "@bufbuild/protobuf";
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
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { TestRunProgressSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { LogPage } from "../event-log/event-log.ts";
import { eventsOf } from "./event-bytes.ts";
import type { Runs } from "./runs.ts";
import type { RunNews, RunWatchers } from "./watch.ts";

/** `/test-runs/{id}/events` */
const PATH = /^\/test-runs\/([^/]{1,192})\/events$/;
/** How long a client may leave unread what was written before it counts as gone. It goes on from there when it is back. */
const STALL_TIMEOUT_MS = 60_000;
/** How soon browsers connect again. */
const RECONNECT_MS = 1_000;
/** Browsers take up to some minutes of silence; proxies in between often one. Heartbeats of a watch come more often. */
const HEARTBEAT = ": the run goes on\n\n";

export interface EventsOverHttpOptions {
  readonly runs: Pick<Runs, "get">;
  readonly watchers: RunWatchers;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Whether a path is that of a run's events, to ask for credentials first. */
export function isEventsPath(path: string): boolean {
  return PATH.test(path);
}

/**
 * Serves a run as server-sent events: each one's id is its sequence, its type the kind of what happened, its data the
 * event as JSON. `caught-up` and `progress` come in between, without an id. Who connects again with the id of the last
 * event goes on after it; after the end the answer is 204, upon which browsers stop connecting.
 */
export function eventsOverHttp({ runs, watchers, clock, logger }: EventsOverHttpOptions): HttpHandler {
  return async (request, response) => {
    const [path = "", query = ""] = (request.url ?? "").split("?", 2);
    const id = PATH.exec(path)?.[1];
    if (id === undefined) {
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
    const last = await lastEvent(runs, decode(id));
    if (last === undefined) {
      refuse(response, 404, "There is no such test run. It may have been deleted because of its age.");
    } else if (after > last.sequence) {
      refuse(response, 400, `The run has ${last.sequence} events: begin after one of them.`);
    } else if (last.isEnd && after === last.sequence) {
      response.statusCode = 204;
      response.end();
    } else {
      await stream(response, watchers.watch.bind(watchers, decode(id), after), clock, logger);
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

/** Undefined: there is no such run. */
async function lastEvent(runs: Pick<Runs, "get">, id: string) {
  try {
    const { lastSequence, endTime } = await runs.get(id);
    return { sequence: Number(lastSequence), isEnd: endTime !== undefined };
  } catch (error) {
    if (error instanceof DomainError && error.init.code === Code.NotFound) {
      return undefined;
    }
    throw error;
  }
}

async function stream(
  response: NodeResponse,
  watch: (signal: AbortSignal) => AsyncIterable<RunNews>,
  clock: Clock,
  logger: Logger,
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

function textOf(news: RunNews): string {
  switch (news.kind) {
    case "connected":
      return `retry: ${RECONNECT_MS}\n\n`;
    case "events":
      return framesOf(news.page);
    case "caught-up":
      return `event: caught-up\ndata: ${JSON.stringify({ sequence: String(news.sequence) })}\n\n`;
    case "progress":
      return `event: progress\ndata: ${JSON.stringify(toJson(TestRunProgressSchema, news.progress))}\n\n`;
    case "heartbeat":
      return HEARTBEAT;
  }
}

/** Written once for all who read the same event. */
const frames = new WeakMap<TestEvent, string>();

function framesOf(page: LogPage): string {
  return eventsOf(page)
    .map((event) => {
      const known = frames.get(event) ?? frameOf(event);
      frames.set(event, known);
      return known;
    })
    .join("");
}

function frameOf(event: TestEvent): string {
  // JSON has no line breaks of its own.
  const data = JSON.stringify(toJson(TestEventSchema, event));
  const kind = event.kind.case?.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`) ?? "unknown";
  return `id: ${event.sequence}\nevent: ${kind}\ndata: ${data}\n\n`;
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
