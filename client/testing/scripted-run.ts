import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import {
  type WatchRunRequest,
  type WatchRunResponse,
  WatchRunResponseSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { type RunEvent, RunEventSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import {
  type Run,
  RunKind,
  RunSchema,
  RunState,
  type RunStep,
  RunStepSchema,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";

/** When runs of tests begin: the same day everywhere. */
export const START = Date.UTC(2026, 10, 21, 12);

export const RUN_ID = "5093e212-2767-4b17-91dd-f96b6caae8e8";

/** A run as a server shows it. */
export function aRun(init: MessageInitShape<typeof RunSchema> = {}): Run {
  return create(RunSchema, {
    id: RUN_ID,
    kind: RunKind.WORKFLOW,
    title: "nightly",
    workflowVersion: 3,
    state: RunState.RUNNING,
    createTime: timestampFromMs(START),
    startTime: timestampFromMs(START),
    createdBy: "ada",
    ...init,
  });
}

/** A step that has ended well after 1.5 s, or as `init` has it. */
export function aStep(path: string, init: MessageInitShape<typeof RunStepSchema> = {}): RunStep {
  return create(RunStepSchema, {
    path,
    kind: "tool",
    state: StepState.SUCCEEDED,
    attempts: 1,
    startTime: timestampFromMs(START),
    endTime: timestampFromMs(START + 1_500),
    ...init,
  });
}

/** Events that count from 1, a second apart. */
export function numbered(
  kinds: readonly [path: string, kind: NonNullable<MessageInitShape<typeof RunEventSchema>["kind"]>][],
): RunEvent[] {
  return kinds.map(([path, kind], index) =>
    create(RunEventSchema, {
      sequence: BigInt(index + 1),
      time: timestampFromMs(START + index * 1_000),
      path,
      kind,
    }),
  );
}

/** An event of a step that has ended. */
export function finished(step: RunStep): [string, { case: "stepFinished"; value: { step: RunStep } }] {
  return [step.path, { case: "stepFinished", value: { step } }];
}

/** An event of a step that begins. */
export function started(
  path: string,
  value: { kind?: string; target?: string; attempt?: number; items?: number } = {},
): [
  string,
  { case: "stepStarted"; value: { kind: string; target?: string; attempt: number; items?: number } },
] {
  return [path, { case: "stepStarted", value: { kind: "tool", attempt: 1, ...value } }];
}

export interface ScriptOptions {
  /** After how many messages each stream is lost, the first one first; further ones are not lost. */
  readonly losses?: number[];
  /** Where each stream was to begin. */
  readonly opened?: bigint[];
  /** Called before the event of this sequence is told; the stream waits for it. */
  readonly before?: ReadonlyMap<number, (signal: AbortSignal) => Promise<void>>;
  /** How many events a message holds. Default 3. */
  readonly batch?: number;
}

/** Tells a run by its events, as WatchRun does. The last event that is told ends the stream. */
export function tellRun(events: readonly RunEvent[], options: ScriptOptions = {}) {
  return async function* (
    request: WatchRunRequest,
    { signal }: HandlerContext,
  ): AsyncGenerator<WatchRunResponse> {
    options.opened?.push(request.afterSequence);
    const lost = options.losses?.shift();
    let messages = 0;
    for await (const message of wholeStream(events, Number(request.afterSequence), signal, options)) {
      if (messages === lost) throw new ConnectError("gone", Code.Unavailable);
      messages += 1;
      yield message;
    }
  };
}

async function* wholeStream(
  events: readonly RunEvent[],
  after: number,
  signal: AbortSignal,
  { before, batch = 3 }: ScriptOptions,
): AsyncGenerator<WatchRunResponse> {
  const first = events[0]?.kind;
  const last = events.at(-1)?.kind;
  // A scripted run has ended when its end is told at once.
  const isOver = before === undefined && last?.case === "finished";
  const run = isOver ? last.value : first?.case === "created" ? first.value : aRun();
  const lastSequence = BigInt(events.length);
  yield create(WatchRunResponseSchema, {
    kind: { case: "connected", value: { run: { ...run, lastSequence } } },
  });
  // Begins before what was asked for: nothing may come twice all the same.
  let index = Math.max(0, after - 1);
  let isCaughtUp = false;
  while (index < events.length) {
    const piece: RunEvent[] = [];
    while (piece.length < batch && index < events.length) {
      const wait = before?.get(index + 1);
      if (wait !== undefined && piece.length > 0) break;
      await wait?.(signal);
      const event = events[index++];
      if (event !== undefined) piece.push(event);
    }
    yield create(WatchRunResponseSchema, { kind: { case: "events", value: { events: piece } } });
    yield create(WatchRunResponseSchema, { kind: { case: "heartbeat", value: {} } });
    if (isCaughtUp) continue;
    isCaughtUp = true;
    yield create(WatchRunResponseSchema, { kind: { case: "caughtUp", value: { sequence: BigInt(index) } } });
  }
}
