import { toJson } from "@bufbuild/protobuf";
import type { Clock, HttpHandler, Logger } from "@toolplane/framework";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { TestRunProgressSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { LogPage } from "../event-log/event-log.ts";
import {
  CONNECTED_FRAME,
  eventFrame,
  heartbeatFrame,
  serveEvents,
} from "../event-streams/server-sent-events.ts";
import { eventsOf } from "./event-bytes.ts";
import type { Runs } from "./runs.ts";
import type { RunNews, RunWatchers } from "./watch.ts";

/** `/test-runs/{id}/events` */
const PATH = /^\/test-runs\/([^/]{1,192})\/events$/;
const HEARTBEAT = heartbeatFrame("run");

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

/** Serves a run as server-sent events. `caught-up` and `progress` come in between, without an id. */
export function eventsOverHttp({ runs, watchers, clock, logger }: EventsOverHttpOptions): HttpHandler {
  return serveEvents({
    path: PATH,
    noun: "run",
    unknown: "There is no such test run. It may have been deleted because of its age.",
    last: (id) => runs.get(id),
    watch: (id, after, signal) => watchers.watch(id, after, signal),
    textOf,
    clock,
    logger,
  });
}

function textOf(news: RunNews): string {
  switch (news.kind) {
    case "connected":
      return CONNECTED_FRAME;
    case "events":
      return framesOf(news.page);
    case "caught-up":
      return eventFrame("caughtUp", { sequence: String(news.sequence) });
    case "progress":
      return eventFrame("progress", toJson(TestRunProgressSchema, news.progress));
    case "heartbeat":
      return HEARTBEAT;
  }
}

/** Written once for all who read the same event. */
const frames = new WeakMap<TestEvent, string>();

function framesOf(page: LogPage): string {
  return eventsOf(page)
    .map((event) => {
      const known =
        frames.get(event) ??
        eventFrame(event.kind.case ?? "unknown", toJson(TestEventSchema, event), event.sequence);
      frames.set(event, known);
      return known;
    })
    .join("");
}
