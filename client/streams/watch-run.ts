import type { Client } from "@connectrpc/connect";
import type {
  OrchestrationService,
  WatchRunResponse,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import type { RunEvent } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { type Run, RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { ResumeOptions } from "./resuming-stream.ts";
import { type EventWatch, watchEvents } from "./watch-events.ts";

export interface WatchRunOptions extends ResumeOptions {
  /** Begins after this event. Default 0: from the beginning. */
  readonly afterSequence?: number | undefined;
  /** True leaves out what models write; sequence numbers then have gaps. Default false. */
  readonly withoutDeltas?: boolean | undefined;
}

/** What a watch of a run tells. */
export type RunNews =
  /** The run as it was when the watch began. Always first, and once. */
  | { readonly kind: "connected"; readonly run: Run }
  /** Something happened. Each event comes once, in order; the last one is `finished`. */
  | { readonly kind: "event"; readonly event: RunEvent }
  /** Everything that had happened when the watch began was told. Once. */
  | { readonly kind: "caught-up"; readonly sequence: number };

/**
 * A run from the event after `afterSequence` to its end, live: a lost connection is opened again after the last event
 * that was seen, so nothing is missing and nothing comes twice. Finishes after the event `finished`.
 */
export async function* watchRun(
  orchestration: Client<typeof OrchestrationService>,
  runId: string,
  { withoutDeltas = false, ...options }: WatchRunOptions = {},
): AsyncGenerator<RunNews, void, undefined> {
  const watch: EventWatch<WatchRunResponse, Run, RunEvent> = {
    // A watch has no deadline; the transport's default is for calls.
    open: (afterSequence, signal) =>
      orchestration.watchRun({ runId, afterSequence, withoutDeltas }, { signal, timeoutMs: 0 }),
    read({ kind }) {
      switch (kind.case) {
        case "connected":
          return { case: "connected", subject: kind.value.run };
        case "events":
          return { case: "events", events: kind.value.events };
        case "caughtUp":
          return { case: "caughtUp", sequence: kind.value.sequence };
        case "heartbeat":
        case undefined:
          return undefined;
      }
    },
    endOf: (run) => (isEnded(run.state) ? run.lastSequence : undefined),
    isLast: (event) => event.kind.case === "finished",
  };
  for await (const news of watchEvents(watch, options)) {
    if (news.kind === "connected") yield { kind: "connected", run: news.subject };
    else if (news.kind !== "own") yield news;
  }
}

/** Whether nothing more happens in a run that is in this state. */
export function isEnded(state: RunState): boolean {
  switch (state) {
    case RunState.SUCCEEDED:
    case RunState.FAILED:
    case RunState.CANCELLED:
      return true;
    case RunState.UNSPECIFIED:
    case RunState.QUEUED:
    case RunState.RUNNING:
    case RunState.WAITING:
      return false;
  }
}
