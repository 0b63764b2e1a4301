import { toJson } from "@bufbuild/protobuf";
import type { Clock, HttpHandler, Logger } from "@toolplane/framework";
import { RunEventSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import {
  CONNECTED_FRAME,
  eventFrame,
  heartbeatFrame,
  serveEvents,
} from "../event-streams/server-sent-events.ts";
import { eventsOf } from "./event-bytes.ts";
import type { Runs } from "./runs.ts";
import type { RunNews, RunWatchers } from "./watch.ts";

/** `/runs/{id}/events` */
const PATH = /^\/runs\/([^/]{1,192})\/events$/;
const HEARTBEAT = heartbeatFrame("run");

export interface RunEventsOverHttpOptions {
  readonly runs: Pick<Runs, "get">;
  readonly watchers: RunWatchers;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Whether a path is that of a run's events, to ask for credentials first. */
export function isRunEventsPath(path: string): boolean {
  return PATH.test(path);
}

/** Serves a run as server-sent events. `caught-up` comes in between, without an id. */
export function runEventsOverHttp({ runs, watchers, clock, logger }: RunEventsOverHttpOptions): HttpHandler {
  return serveEvents({
    path: PATH,
    noun: "run",
    unknown: "There is no such run. It may have been deleted because of its age.",
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
      return eventsOf(news.page)
        .map((event) =>
          eventFrame(event.kind.case ?? "unknown", toJson(RunEventSchema, event), event.sequence),
        )
        .join("");
    case "caught-up":
      return eventFrame("caughtUp", { sequence: String(news.sequence) });
    case "idle":
      return HEARTBEAT;
  }
}
