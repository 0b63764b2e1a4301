import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { followSpool, type SpoolBatch } from "../runners/spool.ts";
import { type EventSource, fitting, MAX_BATCH_BYTES, MAX_BATCH_EVENTS } from "./event-source.ts";

/**
 * Events of a spool file, read while it is written: a line is an event, and its number its position. Holds one piece of
 * the file at a time, and can go back to its beginning.
 */
export function createSpoolSource(path: string): EventSource {
  const closing = new AbortController();
  const written = new AbortController();
  const replaced = new Map<number, TestEvent>();
  let batches: AsyncGenerator<SpoolBatch, void, undefined> | undefined;
  let current: SpoolBatch = { firstPosition: 1, events: [], bytes: 0 };

  async function restart(): Promise<void> {
    await batches?.return();
    batches = undefined;
    current = { firstPosition: 1, events: [], bytes: 0 };
  }

  return {
    async read(position) {
      if (position + 1 < current.firstPosition) await restart();
      batches ??= followSpool(path, { signal: closing.signal, written: written.signal });
      while (position + 1 >= current.firstPosition + current.events.length) {
        const next = await batches.next();
        if (next.done === true) return undefined;
        current = next.value;
      }
      const rest = current.events.slice(position + 1 - current.firstPosition);
      return withinLimits(rest.map((event, index) => replaced.get(position + 1 + index) ?? event));
    },
    release(position) {
      for (const each of replaced.keys()) if (each <= position) replaced.delete(each);
    },
    replace(position, event) {
      replaced.set(position, event);
    },
    end: () => written.abort(),
    close: () => closing.abort(),
  };
}

function withinLimits(events: readonly TestEvent[]): readonly TestEvent[] {
  const batch: TestEvent[] = [];
  let size = 0;
  for (const each of events.slice(0, MAX_BATCH_EVENTS)) {
    const { event, bytes } = fitting(each);
    if (batch.length > 0 && size + bytes > MAX_BATCH_BYTES) break;
    batch.push(event);
    size += bytes;
  }
  return batch;
}
