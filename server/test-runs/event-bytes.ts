import { TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { TestEventsSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { LogPage } from "../event-log/event-log.ts";
import { createEventCodec } from "../event-streams/codec.ts";

const { sequence, time, output, ended } = TestEventSchema.field;

const codec = createEventCodec({
  schema: TestEventSchema,
  eventsSchema: TestEventsSchema,
  eventsField: TestEventsSchema.field.events.number,
  sequenceField: sequence.number,
  before: [sequence.number, time.number],
});

export const { eventsOf, packEvents } = codec;

/** Whether an event is the last one of its run, told by its bytes. */
export function isEnded(bytes: Uint8Array): boolean {
  return codec.kindOf(bytes) === ended.number;
}

/** What is left of a page without output: parts whose events have consecutive numbers. */
export function withoutOutput(page: LogPage): LogPage[] {
  return codec.without(output.number, page);
}
