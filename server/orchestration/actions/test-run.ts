import { create, fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import type { Clock } from "@toolplane/framework";
import { StepProgressSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { type TestRun, TestRunSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { codeOf } from "../../error-code.ts";
import { isTransient } from "../engine/retry-delay.ts";
import type { StepContext } from "../engine/step.ts";
import type { Work } from "./action.ts";
import { childKey, stopsWithStep } from "./children.ts";
import { type OwnTools, objectOf } from "./own-tools.ts";
import { failureOf, hasEnded, wasLost } from "./test-run-verdict.ts";

/** How long one call waits for the end of a run; calls have to end before what is between gives them up. */
const WAIT_S = 20;
const WAIT_TIMEOUT_MS = 40_000;
/** How often in a row it may not be known how a run does, with so much time in between, before the step fails. */
const MAX_BLIND_CALLS = 10;
const BLIND_DELAY_MS = 1_000;
/** How many test runs of a step may be lost with their servers before it fails. */
const MAX_LOST_RUNS = 5;
/** How long cancelling may take. */
const CANCEL_TIMEOUT_MS = 5_000;

/** A test run in the two forms that are needed. */
interface SeenRun {
  readonly json: JsonObject;
  readonly run: TestRun;
}

/** Runs the tests of a project and waits for their end. The output is the test run. */
export function createTestRunWork(ownTools: OwnTools, clock: Clock): Work<"test_run"> {
  async function start(args: JsonObject, key: string, context: StepContext): Promise<SeenRun> {
    const { run } = await ownTools.call(
      "run-unit-tests",
      { ...args, request_id: key },
      { ...context, idempotencyKey: key },
    );
    return seen(run);
  }

  async function look(id: string, waitS: number, context: StepContext): Promise<SeenRun> {
    const { run } = await ownTools.call(
      "get-test-run",
      { run_id: id, wait: `${waitS}s` },
      { ...context, idempotencyKey: "" },
      WAIT_TIMEOUT_MS,
    );
    return seen(run);
  }

  /** Waits for the end. That the server which is asked goes away is no reason to give up a run. */
  async function end(id: string, context: StepContext): Promise<SeenRun> {
    let blind = 0;
    for (;;) {
      try {
        const found = await look(id, WAIT_S, context);
        if (hasEnded(found.run)) {
          return found;
        }
        blind = 0;
        tellProgress(found.run, context);
      } catch (error) {
        if (context.signal.aborted || !isTransient(codeOf(error)) || ++blind === MAX_BLIND_CALLS) {
          throw error;
        }
        await pause(clock, BLIND_DELAY_MS, context.signal);
      }
    }
  }

  async function cancel(id: string, context: StepContext): Promise<void> {
    const timeout = new AbortController();
    const cancelTimer = clock.after(CANCEL_TIMEOUT_MS, () => timeout.abort());
    const message = `the run ${context.run.id} that it belongs to was stopped`;
    await ownTools
      .call(
        "cancel-test-run",
        { run_id: id, message },
        { ...context, idempotencyKey: "", signal: timeout.signal },
      )
      // It has ended, or ends by its own timeout.
      .catch(() => undefined);
    cancelTimer();
  }

  /** Starts the run, or finds the one that was started before, and waits for it. */
  async function follow(
    args: JsonObject,
    index: number,
    context: StepContext,
  ): Promise<SeenRun & { old: boolean }> {
    const started = await start(args, childKey(context.idempotencyKey, index), context);
    const { id } = started.run;
    context.tell({
      case: "stepProgress",
      value: create(StepProgressSchema, { message: `test run ${id}`, childId: id }),
    });
    try {
      const present = context.attempt > 1 ? await look(id, 0, context) : started;
      const old = hasEnded(present.run);
      return { ...(old ? present : await end(id, context)), old };
    } catch (error) {
      if (stopsWithStep(context.signal)) {
        await cancel(id, context);
      }
      throw error;
    }
  }

  return async ({ allowFailures }, input, context) => {
    const args = { ...objectOf(input["arguments"]), project: input["project"] ?? "" };
    for (let index = 0; ; index++) {
      const { run, json, old } = await follow(args, index, context);
      const failure = failureOf(run, allowFailures);
      if (failure === undefined) {
        return { output: json, childId: run.id };
      }
      // A server that goes away or is stopped takes its test runs with it, whichever attempt at the step this is.
      const again = wasLost(run) ? index < MAX_LOST_RUNS : old && index + 1 < context.attempt;
      if (!again || !isTransient(failure.init.code)) {
        throw failure;
      }
    }
  };
}

function seen(json: JsonValue | undefined): SeenRun {
  const object = objectOf(json);
  // It may come from a newer server of the same database.
  return { json: object, run: fromJson(TestRunSchema, object, { ignoreUnknownFields: true }) };
}

function tellProgress({ id, counts }: TestRun, context: StepContext): void {
  if (counts === undefined || counts.total === 0) {
    return;
  }
  const { total, passed, failed, skipped, expectedFailures, errors, interrupted, notRun } = counts;
  const ended = passed + failed + skipped + expectedFailures + errors + interrupted + notRun;
  context.tell({
    case: "stepProgress",
    value: create(StepProgressSchema, {
      message: `${ended} of ${total} tests${failed + errors > 0 ? `, ${failed + errors} failed` : ""}`,
      percent: Math.min((ended / total) * 100, 100),
      childId: id,
    }),
  });
}

/** Resolves after `ms`, or when the signal is aborted. */
async function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const cancel = clock.after(ms, resolve);
  const leave = () => resolve();
  signal.addEventListener("abort", leave, { once: true });
  await promise;
  signal.removeEventListener("abort", leave);
  cancel();
}
