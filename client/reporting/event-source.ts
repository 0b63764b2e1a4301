import { create, toBinary } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import {
  ProblemSeverity,
  type TestEvent,
  TestEventSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";

/** The numbered events of one reporter, read as they are uploaded. */
export interface EventSource {
  /**
   * Events from the one after `position` on, at least one, within the limits of a request. Waits for them; undefined
   * when there will be no more. Throws a `RangeError` when it no longer has the event after `position`.
   */
  read(position: number): Promise<readonly TestEvent[] | undefined>;
  /** Everything up to `position` is durable and need not be kept. */
  release(position: number): void;
  /** Replaces an event that the server does not take. */
  replace(position: number, event: TestEvent): void;
  /** Nothing will be added: what is there is read to its end. */
  end(): void;
  /** Nothing will be read any more: waiting reads end, and nothing is kept. */
  close(): void;
}

/** The most events in one request. */
export const MAX_BATCH_EVENTS = 2_000;

/** The size of the events in one request, in bytes of Protobuf; a single event may be larger. */
export const MAX_BATCH_BYTES = 1024 * 1024;

/** The largest event that a server takes with its usual limit of 4 MiB a request, in bytes of Protobuf. */
const MAX_EVENT_BYTES = 3 * 1024 * 1024;

/** An event that fits into a request, with its size: what is too large for that is a problem in its place. */
export function fitting(event: TestEvent): { readonly event: TestEvent; readonly bytes: number } {
  const bytes = toBinary(TestEventSchema, event).length;
  if (bytes <= MAX_EVENT_BYTES) return { event, bytes };
  const instead = problem(`an event (${event.kind.case}) of ${bytes} bytes was left out: it is too large`);
  return { event: instead, bytes: toBinary(TestEventSchema, instead).length };
}

/** Says that something that was reported is missing. */
export function problem(message: string): TestEvent {
  return create(TestEventSchema, {
    time: timestampNow(),
    kind: { case: "problem", value: { severity: ProblemSeverity.ERROR, message: message.slice(0, 10_000) } },
  });
}
