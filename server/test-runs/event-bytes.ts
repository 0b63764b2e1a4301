import { create, fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import {
  type TestEvents,
  TestEventsSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { LogPage } from "../event-log/event-log.ts";

const EVENTS_FIELD = 1;
const SEQUENCE_FIELD = TestEventSchema.field.sequence.number;
const TIME_FIELD = TestEventSchema.field.time.number;
const OUTPUT_FIELD = TestEventSchema.field.output.number;
const ENDED_FIELD = TestEventSchema.field.ended.number;

/** Events are stored without their number. Watchers of a run share the bytes, and so what is made of them. */
const decoded = new WeakMap<Uint8Array, TestEvent>();

/** The events of a page with their numbers, decoded once for all watchers. Not to be changed. */
export function eventsOf({ first, events }: LogPage): TestEvent[] {
  return events.map((bytes, index) => {
    let event = decoded.get(bytes);
    if (event === undefined) {
      event = fromBinary(TestEventSchema, bytes);
      event.sequence = BigInt(first + index);
      decoded.set(bytes, event);
    }
    return event;
  });
}

interface Packed {
  readonly count: number;
  readonly data: Uint8Array;
}

const packed = new WeakMap<Uint8Array, Packed>();

/**
 * The events of a page as they go over the wire in binary, put together once for all watchers: to encode the same events
 * for each of a thousand watchers would take longer than everything else. The message holds them as a field that it does
 * not know, so it is of use for nothing but to be written in binary.
 */
export function packEvents({ first, events }: LogPage): TestEvents {
  const [head] = events;
  const message = create(TestEventsSchema);
  if (head !== undefined) {
    let known = packed.get(head);
    if (known?.count !== events.length) {
      known = { count: events.length, data: writeAll(events, first) };
      packed.set(head, known);
    }
    message.$unknown = [{ no: EVENTS_FIELD, wireType: WireType.LengthDelimited, data: known.data }];
  }
  return message;
}

/** Each event with its number, lengths and tags between them; without the first tag, which the writer sets. */
function writeAll(events: readonly Uint8Array[], first: number): Uint8Array {
  const writer = new BinaryWriter();
  for (const [index, bytes] of events.entries()) {
    const sequence = new BinaryWriter()
      .tag(SEQUENCE_FIELD, WireType.Varint)
      .int64(first + index)
      .finish();
    if (index > 0) {
      writer.tag(EVENTS_FIELD, WireType.LengthDelimited);
    }
    // Fields may come in any order.
    writer
      .uint32(bytes.byteLength + sequence.byteLength)
      .raw(bytes)
      .raw(sequence);
  }
  return writer.finish();
}

/** Whether an event is output, told by its bytes. */
export function isOutput(bytes: Uint8Array): boolean {
  return kindField(bytes) === OUTPUT_FIELD;
}

/** Whether an event is the last one of its run, told by its bytes. */
export function isEnded(bytes: Uint8Array): boolean {
  return kindField(bytes) === ENDED_FIELD;
}

/** The number of the field that says what happened; undefined for an event that says nothing. */
function kindField(bytes: Uint8Array): number | undefined {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field !== SEQUENCE_FIELD && field !== TIME_FIELD) {
      return field;
    }
    reader.skip(wireType, field);
  }
  return undefined;
}

/** What is left of a page without output: parts whose events have consecutive numbers. */
export function withoutOutput({ first, events }: LogPage): LogPage[] {
  const parts: { first: number; events: Uint8Array[] }[] = [];
  let last = -1;
  for (const [index, bytes] of events.entries()) {
    if (isOutput(bytes)) {
      continue;
    }
    const sequence = first + index;
    const open = parts.at(-1);
    if (open !== undefined && last + 1 === sequence) {
      open.events.push(bytes);
    } else {
      parts.push({ first: sequence, events: [bytes] });
    }
    last = sequence;
  }
  return parts;
}
