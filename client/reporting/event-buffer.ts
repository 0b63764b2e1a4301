import { create } from "@bufbuild/protobuf";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { TestEventInit } from "../runners/runner.ts";
import { sleep } from "../streams/backoff.ts";
import { type EventSource, fitting, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, problem } from "./event-source.ts";

export interface EventBufferOptions {
  /** How many events are kept before output is dropped. Default 50,000. */
  readonly maxEvents?: number | undefined;
  /** How many bytes of events are kept before output is dropped. Default 32 MiB. */
  readonly maxBytes?: number | undefined;
  /** How long the first event of a batch waits for others, in milliseconds. Default 20. */
  readonly flushDelayMs?: number | undefined;
}

/** Events in memory, until the server has them. */
export interface EventBuffer extends EventSource {
  /**
   * Takes an event. Resolves when there is room for more: whoever can wait should. In a full buffer output is dropped,
   * the oldest first, and a problem says so; everything else is kept.
   */
  add(event: TestEventInit): Promise<void>;
}

interface Entry {
  readonly event: TestEvent;
  readonly bytes: number;
}

export function createEventBuffer(options: EventBufferOptions = {}): EventBuffer {
  const { maxEvents = 50_000, maxBytes = 32 * 1024 * 1024, flushDelayMs = 20 } = options;
  const closing = new AbortController();
  /** What is not durable yet; `released` is the position before the first. */
  let entries: Entry[] = [];
  let released = 0;
  let bytes = 0;
  /** How many of `entries` were read: their positions are fixed, so they may not be dropped. */
  let read = 0;
  let dropped = 0;
  let ended = false;
  let wakeReader: (() => void) | undefined;
  let wakeWriters: (() => void)[] = [];

  const isFull = () => entries.length >= maxEvents || bytes >= maxBytes;

  function push(event: TestEvent): void {
    const entry = fitting(event);
    entries.push(entry);
    bytes += entry.bytes;
  }

  /** Makes room by dropping output that was not read yet. */
  function dropOutput(): void {
    const kept = entries.filter(({ event }, index) => index < read || event.kind.case !== "output");
    dropped += entries.length - kept.length;
    entries = kept;
    bytes = kept.reduce((sum, entry) => sum + entry.bytes, 0);
  }

  function confessDropped(): void {
    if (dropped === 0) return;
    const message = `${dropped} pieces of output were left out: the server did not take them fast enough`;
    dropped = 0;
    push(problem(message));
  }

  function wake(): void {
    wakeReader?.();
    wakeReader = undefined;
    if (!isFull() || closing.signal.aborted) {
      for (const resume of wakeWriters) resume();
      wakeWriters = [];
    }
  }

  return {
    async add(init) {
      if (ended || closing.signal.aborted) return;
      const event = create(TestEventSchema, init);
      if (isFull()) dropOutput();
      if (isFull() && event.kind.case === "output") dropped += 1;
      else push(event);
      wakeReader?.();
      wakeReader = undefined;
      if (isFull()) await new Promise<void>((resolve) => wakeWriters.push(resolve));
    },
    async read(position) {
      if (position < released) throw new RangeError(`event ${position + 1} is no longer kept`);
      let waited = false;
      while (!closing.signal.aborted && released + entries.length <= position) {
        if (ended && dropped === 0) return undefined;
        if (ended) confessDropped();
        else {
          waited = true;
          await new Promise<void>((resolve) => {
            wakeReader = resolve;
          });
        }
      }
      // Gathers what comes close behind; while a request is under way they gather by themselves.
      if (waited && !ended) await sleep(flushDelayMs, closing.signal);
      if (closing.signal.aborted) return undefined;
      const batch = takeBatch(entries, position - released);
      read = Math.max(read, position - released + batch.length);
      return batch;
    },
    release(position) {
      const count = Math.min(Math.max(0, position - released), entries.length);
      for (const entry of entries.splice(0, count)) bytes -= entry.bytes;
      released += count;
      read = Math.max(0, read - count);
      // With room to spare, so that a server that stays too slow is not told of every single piece.
      if (entries.length <= maxEvents / 2 && bytes <= maxBytes / 2) confessDropped();
      wake();
    },
    replace(position, event) {
      const index = position - released - 1;
      const old = entries[index];
      if (old === undefined) return;
      const entry = fitting(event);
      bytes += entry.bytes - old.bytes;
      entries[index] = entry;
    },
    end() {
      ended = true;
      wake();
    },
    close() {
      closing.abort();
      entries = [];
      bytes = 0;
      wake();
    },
  };
}

/** As many events as a request may have. */
function takeBatch(entries: readonly Entry[], start: number): TestEvent[] {
  const batch: TestEvent[] = [];
  let size = 0;
  for (let index = start; index < entries.length && batch.length < MAX_BATCH_EVENTS; index += 1) {
    const entry = entries[index];
    if (entry === undefined || (batch.length > 0 && size + entry.bytes > MAX_BATCH_BYTES)) break;
    batch.push(entry.event);
    size += entry.bytes;
  }
  return batch;
}
