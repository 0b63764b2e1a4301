import { create } from "@bufbuild/protobuf";
import { type Duration, type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type FieldViolation, invalidArgument } from "@toolplane/framework";
import {
  ProblemSeverity,
  type TestEvent,
  TestEventSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { TestIdentity } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { tooManyEvents, tooMuchOpen } from "./refusals.ts";
import { OUTPUT_DROPPED_PLACE, type RunState } from "./run-state.ts";
import { testIdOf } from "./test-id.ts";

/** Refuses events that only the server may write, and results that say nothing. */
export function refuseForeignKinds(events: readonly TestEvent[]): void {
  const violations: FieldViolation[] = [];
  for (const [index, { kind }] of events.entries()) {
    switch (kind.case) {
      case "created":
      case "started":
      case "ended":
        violations.push({
          field: `events[${index}].${kind.case}`,
          description: "is written by the server only: leave it out",
        });
        break;
      default:
    }
  }
  if (violations.length > 0) {
    throw invalidArgument(violations);
  }
}

/**
 * Fills in what reporters may leave out, and takes out times that no calendar has: they have no form in JSON, so that one
 * of them would keep a whole run from those who read it that way. The events are changed.
 */
export function completeEvents(
  events: readonly TestEvent[],
  run: { readonly project: string; readonly framework: string },
  nowMs: number,
): void {
  const now = timestampFromMs(nowMs);
  const complete = (test: TestIdentity | undefined) => {
    if (test !== undefined) {
      test.project ||= run.project;
      test.framework ||= run.framework;
    }
  };
  for (const event of events) {
    event.sequence = 0n;
    event.time = isTimestamp(event.time) ? event.time : now;
    const { kind } = event;
    switch (kind.case) {
      case "testsFound":
        kind.value.tests.forEach(complete);
        break;
      case "testStarted":
      case "output":
        complete(kind.value.test);
        break;
      case "attemptEnded":
        complete(kind.value.test);
        dropBadTimes(kind.value.result ?? {});
        break;
      case "fileEnded":
        dropBadTimes(kind.value);
        break;
      case "testEnded":
        complete(kind.value.test);
        kind.value.testId = kind.value.test === undefined ? "" : testIdOf(kind.value.test);
        dropBadTimes(kind.value);
        kind.value.attempts.forEach(dropBadTimes);
        break;
      default:
    }
  }
}

function dropBadTimes(timed: { startTime?: Timestamp | undefined; duration?: Duration | undefined }): void {
  if (!isTimestamp(timed.startTime)) {
    delete timed.startTime;
  }
  if (!isDuration(timed.duration)) {
    delete timed.duration;
  }
}

/** From the year 1 to the year 9999; see google.protobuf.Timestamp. */
function isTimestamp(time: Timestamp | undefined): time is Timestamp {
  return (
    time !== undefined &&
    time.seconds >= -62_135_596_800n &&
    time.seconds <= 253_402_300_799n &&
    time.nanos >= 0 &&
    time.nanos < 1e9
  );
}

/** Up to 10,000 years; see google.protobuf.Duration. No test takes less than no time. */
function isDuration(duration: Duration | undefined): duration is Duration {
  return (
    duration !== undefined &&
    duration.seconds >= 0n &&
    duration.seconds <= 315_576_000_000n &&
    duration.nanos >= 0 &&
    duration.nanos < 1e9
  );
}

/** Events are counted and weighed: so much on average. */
const BYTES_PER_EVENT = 1_024;
/** Emptied output takes little room, but some. */
const MAX_SEQUENCE_FACTOR = 16;

/** What tests and files that were announced and have not ended may take in memory: those of a million tests, and more. */
const MAX_HELD_BYTES = 512 * 1024 * 1024;
/** What adds to it. */
const OPENING = new Set<TestEvent["kind"]["case"]>([
  "testsFound",
  "testStarted",
  "attemptEnded",
  "fileStarted",
]);

/**
 * Keeps a run within its limit of events. Beyond it output is emptied; its place stays, since reporters count what they
 * send. The first one left out makes room for a problem that says so. From twice the limit on nothing else is taken.
 */
export function limitEvents(
  events: readonly TestEvent[],
  state: RunState,
  maxEvents: number,
): readonly TestEvent[] {
  if (state.heldBytes > MAX_HELD_BYTES && events.some(({ kind }) => OPENING.has(kind.case))) {
    throw tooMuchOpen();
  }
  const isOver =
    state.events + events.length > maxEvents ||
    state.counts.total > maxEvents ||
    state.bytes > maxEvents * BYTES_PER_EVENT ||
    state.outputDropped;
  if (!isOver || events.length === 0) {
    return events;
  }
  const refusesAll = state.lastSequence >= maxEvents * MAX_SEQUENCE_FACTOR;
  const refusesResults =
    state.events >= 2 * maxEvents ||
    state.counts.total > maxEvents ||
    state.bytes >= 2 * maxEvents * BYTES_PER_EVENT;
  if (refusesAll || (refusesResults && events.some(({ kind }) => kind.case !== "output"))) {
    throw tooManyEvents(state.events);
  }
  let said = state.outputDropped;
  return events.map((event) => {
    if (event.kind.case !== "output") {
      return event;
    }
    const replacement = create(TestEventSchema, {
      ...(event.time && { time: event.time }),
      kind: said ? { case: "output", value: {} } : { case: "problem", value: outputDropped(maxEvents) },
    });
    said = true;
    return replacement;
  });
}

function outputDropped(maxEvents: number) {
  return {
    severity: ProblemSeverity.WARNING,
    message: `The run has more than ${maxEvents} events: what is written from here on is left out. Let the suite write less, or raise testing.max_events_per_run`,
    place: OUTPUT_DROPPED_PLACE,
  };
}
