import type { Client } from "@connectrpc/connect";
import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type {
  TestRunProgress,
  TestRunService,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { type ResumeOptions, resumingStream } from "./resuming-stream.ts";

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
  { afterSequence = 0, withoutOutput = false, ...options }: WatchTestRunOptions = {},
): AsyncGenerator<TestRunNews, void, undefined> {
  let sequence = BigInt(afterSequence);
  let isConnected = false;
  let isCaughtUp = false;
  // A watch has no deadline; the transport's default is for calls.
  const open = (signal: AbortSignal) =>
    tests.watchTestRun({ runId, afterSequence: sequence, withoutOutput }, { signal, timeoutMs: 0 });
  for await (const { kind } of resumingStream(open, options)) {
    switch (kind.case) {
      case "connected":
        if (kind.value.run === undefined) break;
        if (!isConnected) yield { kind: "connected", run: kind.value.run };
        isConnected = true;
        // Nothing follows the last event: a stream that begins behind it just ends.
        if (kind.value.run.end !== undefined && kind.value.run.lastSequence <= sequence) return;
        break;
      case "events":
        for (const event of kind.value.events) {
          if (event.sequence <= sequence) continue;
          sequence = event.sequence;
          yield { kind: "event", event };
          if (event.kind.case === "ended") return;
        }
        break;
      case "caughtUp":
        if (isCaughtUp) break;
        isCaughtUp = true;
        yield { kind: "caught-up", sequence: Number(kind.value.sequence) };
        break;
      case "progress":
        yield { kind: "progress", progress: kind.value };
        break;
      case "heartbeat":
      case undefined:
        break;
    }
  }
}
