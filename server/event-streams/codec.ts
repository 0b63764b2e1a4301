import { create, type DescMessage, fromBinary, type Message, type MessageShape } from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { LogPage } from "../event-log/event-log.ts";

/** The fields that every kind of event has. */
type Event = Message & { sequence: bigint };

/** Reads and repeats the events of streams, which are stored without their number. */
export interface EventCodec<T extends Event, Events extends Message> {
  /** The events of a page with their numbers, decoded once for all watchers. Not to be changed. */
  eventsOf(page: LogPage): T[];
  /**
   * The events of a page as they go over the wire in binary, put together once for all watchers: to encode the same events
   * for each of a thousand watchers would take longer than everything else. The message holds them as a field that it does
   * not know, so it is of use for nothing but to be written in binary.
   */
  packEvents(page: LogPage): Events;
  /** The number of the field that says what happened, told by the event's bytes; undefined: it says nothing. */
  kindOf(bytes: Uint8Array): number | undefined;
  /** What is left of a page without one kind of events: parts whose events have consecutive numbers. */
  without(kind: number, page: LogPage): LogPage[];
}

/**
 * @param before the numbers of the fields of an event that do not say what happened
 * @param eventsField the number of the field that holds the events in `eventsSchema`
 */
export function createEventCodec<Desc extends DescMessage, EventsDesc extends DescMessage>(options: {
  readonly schema: MessageShape<Desc> extends Event ? Desc : never;
  readonly eventsSchema: EventsDesc;
  readonly eventsField: number;
  readonly before: readonly number[];
  readonly sequenceField: number;
}): EventCodec<MessageShape<Desc> & Event, MessageShape<EventsDesc>> {
  const { schema, eventsSchema, eventsField, before, sequenceField } = options;
  // Watchers share the bytes, and so what is made of them.
  const decoded = new WeakMap<Uint8Array, MessageShape<Desc> & Event>();
  const packed = new WeakMap<Uint8Array, { readonly count: number; readonly data: Uint8Array }>();

  function kindOf(bytes: Uint8Array): number | undefined {
    const reader = new BinaryReader(bytes);
    while (reader.pos < reader.len) {
      const [field, wireType] = reader.tag();
      if (!before.includes(field)) {
        return field;
      }
      reader.skip(wireType, field);
    }
    return undefined;
  }

  /** Each event with its number, lengths and tags between them; without the first tag, which the writer sets. */
  function writeAll(events: readonly Uint8Array[], first: number): Uint8Array {
    const writer = new BinaryWriter();
    for (const [index, bytes] of events.entries()) {
      const sequence = new BinaryWriter()
        .tag(sequenceField, WireType.Varint)
        .int64(first + index)
        .finish();
      if (index > 0) {
        writer.tag(eventsField, WireType.LengthDelimited);
      }
      // Fields may come in any order.
      writer
        .uint32(bytes.byteLength + sequence.byteLength)
        .raw(bytes)
        .raw(sequence);
    }
    return writer.finish();
  }

  return {
    eventsOf({ first, events }) {
      return events.map((bytes, index) => {
        let event = decoded.get(bytes);
        if (event === undefined) {
          event = fromBinary(schema, bytes) as MessageShape<Desc> & Event;
          event.sequence = BigInt(first + index);
          decoded.set(bytes, event);
        }
        return event;
      });
    },

    packEvents({ first, events }) {
      const [head] = events;
      const message: MessageShape<EventsDesc> = create(eventsSchema);
      if (head !== undefined) {
        let known = packed.get(head);
        if (known?.count !== events.length) {
          known = { count: events.length, data: writeAll(events, first) };
          packed.set(head, known);
        }
        message.$unknown = [{ no: eventsField, wireType: WireType.LengthDelimited, data: known.data }];
      }
      return message;
    },

    kindOf,

    without(kind, { first, events }) {
      const parts: { first: number; events: Uint8Array[] }[] = [];
      let last = -1;
      for (const [index, bytes] of events.entries()) {
        if (kindOf(bytes) === kind) {
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
    },
  };
}
