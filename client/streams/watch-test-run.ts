import type { Client } from "@connectrpc/connect";
import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type {
  TestRunProgress,
  TestRunService,
  WatchTestRunResponse,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { ResumeOptions } from "./resuming-stream.ts";
import { type EventWatch, watchEvents } from "./watch-events.ts";

export interface WatchTestRunOptions extends ResumeOptions {
  /** Begins after this event. Default 0: from the beginning. */
  readonly afterSequence?: number | undefined;
  /** True leaves out what the runner and the tests write. Default false. */
  readonly withoutOutput?: boolean | undefined;
}

/** What a watch of a test run tells. */
export type TestRunNews =
  /** The run as it was when the watch began. Always first, and once. */
  | { readonly kind: "connected"; readonly run: TestRun }
  /** Something happened. Each event comes once, in order; the last one is `ended`. */
  | { readonly kind: "event"; readonly event: TestEvent }
  /** Everything that had happened when the watch began was told. Once. */
  | { readonly kind: "caught-up"; readonly sequence: number }
  /** How far the run is. */
  | { readonly kind: "progress"; readonly progress: TestRunProgress };

/**
 * A test run from the event after `afterSequence` to its end, live: a lost connection is opened again after the last
 * event that was seen, so nothing is missing and nothing comes twice. Finishes after the event `ended`.
 */
export async function* watchTestRun(
  tests: Client<typeof TestRunService>,
  runId: string,
  { withoutOutput = false, ...options }: WatchTestRunOptions = {},
): AsyncGenerator<TestRunNews, void, undefined> {
  const watch: EventWatch<WatchTestRunResponse, TestRun, TestEvent> = {
    // A watch has no deadline; the transport's default is for calls.
    open: (afterSequence, signal) =>
      tests.watchTestRun({ runId, afterSequence, withoutOutput }, { signal, timeoutMs: 0 }),
    read({ kind }) {
      switch (kind.case) {
        case "connected":
          return { case: "connected", subject: kind.value.run };
        case "events":
          return { case: "events", events: kind.value.events };
        case "caughtUp":
          return { case: "caughtUp", sequence: kind.value.sequence };
        case "progress":
        case "heartbeat":
        case undefined:
          return undefined;
      }
    },
    endOf: (run) => (run.end === undefined ? undefined : run.lastSequence),
    isLast: (event) => event.kind.case === "ended",
  };
  for await (const news of watchEvents(watch, options)) {
    if (news.kind === "connected") yield { kind: "connected", run: news.subject };
    else if (news.kind !== "own") yield news;
    else if (news.response.kind.case === "progress") {
      yield { kind: "progress", progress: news.response.kind.value };
    }
  }
}
