import { RunEventsSchema } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { RunEventSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import type { LogPage } from "../event-log/event-log.ts";
import { createEventCodec } from "../event-streams/codec.ts";

const { sequence, time, path, modelDelta } = RunEventSchema.field;

const codec = createEventCodec({
  schema: RunEventSchema,
  eventsSchema: RunEventsSchema,
  eventsField: RunEventsSchema.field.events.number,
  sequenceField: sequence.number,
  before: [sequence.number, time.number, path.number],
});

export const { eventsOf, packEvents } = codec;

/** What is left of a page without what models write: parts whose events have consecutive numbers. */
export function withoutDeltas(page: LogPage): LogPage[] {
  return codec.without(modelDelta.number, page);
}
