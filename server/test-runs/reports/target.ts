import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { invalidArgument } from "@toolplane/framework";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { type TestRun, TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { NewRun, Runs } from "../runs.ts";

type TestEventInit = MessageInitShape<typeof TestEventSchema>;

/** Where the events of a report go. */
export interface ImportTarget {
  add(event: TestEventInit): Promise<void>;
  /** The report is at its end. `brokenBecause` is empty when all of it was read. */
  finish(brokenBecause: string): Promise<TestRun>;
  /** The import failed. Leaves nothing open behind; never throws. */
  abandon(reason: string): Promise<void>;
}

const MAX_BATCH_EVENTS = 500;
const MAX_BATCH_BYTES = 1024 * 1024;
/** What is said before the first result, while there is no run yet. */
const MAX_HELD = 1_000;
const REPORTER = "import";

/** A run of its own, made when the first result or coverage comes. */
export function newRunTarget(runs: Runs, newRun: NewRun): ImportTarget {
  let run: TestRun | undefined;
  let batch: TestEvent[] = [];
  let bytes = 0;
  let position = 1;
  let framework = newRun.framework;

  async function flush(): Promise<void> {
    run ??= await runs.create({ ...newRun, framework });
    if (batch.length > 0 && !isRepeated(run)) {
      const events = batch;
      batch = [];
      bytes = 0;
      await runs.append(run.id, REPORTER, position, events);
      position += events.length;
    }
  }

  return {
    async add(init) {
      const event = create(TestEventSchema, init);
      const tells = event.kind.case === "testEnded" || event.kind.case === "coverage";
      if (run === undefined && !tells && batch.length >= MAX_HELD) {
        return;
      }
      if (event.kind.case === "testEnded") {
        framework ||= event.kind.value.test?.framework ?? "";
      }
      batch.push(event);
      bytes += toBinary(TestEventSchema, event).length;
      const isFull = batch.length >= MAX_BATCH_EVENTS || bytes >= MAX_BATCH_BYTES;
      if ((run === undefined && tells) || (run !== undefined && isFull)) {
        await flush();
      }
    },
    async finish(brokenBecause) {
      await flush();
      // `flush` has made it.
      const made = run as TestRun;
      return await runs.finish(made.id, {
        reason: brokenBecause === "" ? TestRunEndReason.UNSPECIFIED : TestRunEndReason.INCOMPLETE,
        message: brokenBecause,
      });
    },
    async abandon(reason) {
      if (run !== undefined) {
        await runs.finish(run.id, { reason: TestRunEndReason.INCOMPLETE, message: reason }).catch(() => {
          // The reaper ends it, as nothing is reported any more.
        });
      }
    },
  };
}

/** The same request came before, and its import has ended. */
function isRepeated(run: TestRun): boolean {
  return run.end !== undefined;
}

/** A run that has ended, to which coverage is added. */
export function coverageTarget(runs: Runs, runId: string): ImportTarget {
  return {
    async add(init) {
      const { kind } = create(TestEventSchema, init);
      switch (kind.case) {
        case "coverage":
          await runs.addCoverage(runId, kind.value.files);
          break;
        case "testEnded":
          throw invalidArgument([
            {
              field: "header.run_id",
              description:
                "only coverage can be added to a run that has ended: leave it out to make a run of these results",
            },
          ]);
        default:
      }
    },
    finish: () => runs.get(runId),
    async abandon() {},
  };
}
