import { closeSync, openSync, watch, writeSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { create, fromJsonString, type JsonValue, toJson } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import {
  ProblemSeverity,
  type TestEvent,
  TestEventSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { TestEventInit } from "./runner.ts";

/** The environment variable that names the spool file to reporters inside of a runner. */
export const SPOOL_VARIABLE = "TOOLPLANE_TEST_EVENTS";

/** Longer lines are neither written nor read. */
export const MAX_SPOOL_LINE_BYTES = 8 * 1024 * 1024;

const READ_BYTES = 256 * 1024;
/** Bounds how long parsing holds up everything else. */
const MAX_BATCH = 1_000;
const NEWLINE = 0x0a;
/** How often to look when the file system tells of changes, and when it does not, in milliseconds. */
const WATCHED_POLL_MS = 250;
const POLL_MS = 15;

/** Writes events to a spool file: one a line, as Protobuf JSON in UTF-8. */
export interface SpoolWriter {
  /**
   * Hands the event to the operating system before it returns, so that it outlives this process. Never throws: reporting
   * must not decide over tests. Several processes may write to one file.
   */
  write(event: TestEventInit): void;
  close(): void;
}

/** Opens a spool file for appending. What cannot be written is told once, on standard error. */
export function createSpoolWriter(path: string): SpoolWriter {
  let file: number | undefined;
  let broken = false;

  function append(line: string): void {
    file ??= openSync(path, "a");
    // A line is one write, so that lines of several processes do not mix.
    writeSync(file, `${line}\n`);
  }

  return {
    write(event) {
      if (broken) {
        return;
      }
      try {
        append(spoolLine(event));
      } catch (error) {
        broken = true;
        process.stderr.write(`toolplane: test events cannot be written to ${path}: ${messageOf(error)}\n`);
      }
    },
    close() {
      if (file !== undefined) {
        closeSync(file);
        file = undefined;
      }
      broken = true;
    },
  };
}

/** An event as one line, or a problem in its place where it cannot be written. */
function spoolLine(event: TestEventInit): string {
  try {
    const line = toLine(event);
    if (line.length * 3 <= MAX_SPOOL_LINE_BYTES || Buffer.byteLength(line) < MAX_SPOOL_LINE_BYTES) {
      return line;
    }
    return toLine(
      problemEvent(ProblemSeverity.ERROR, "an event of more than 8 MiB was left out", describe(event)),
    );
  } catch (error) {
    return toLine(
      problemEvent(
        ProblemSeverity.ERROR,
        `an event could not be written: ${messageOf(error)}`,
        describe(event),
      ),
    );
  }
}

function toLine(event: TestEventInit): string {
  const json = toJson(TestEventSchema, create(TestEventSchema, event));
  const line = JSON.stringify(json);
  // Tests may put half a surrogate pair into a name, which is escaped here, and which Protobuf refuses to read.
  return /\\ud[89a-f]/.test(line) ? JSON.stringify(wellFormed(json)) : line;
}

function wellFormed(json: JsonValue): JsonValue {
  if (typeof json === "string") {
    return json.toWellFormed();
  }
  if (Array.isArray(json)) {
    return json.map(wellFormed);
  }
  return json !== null && typeof json === "object"
    ? Object.fromEntries(Object.entries(json).map(([key, item]) => [key.toWellFormed(), wellFormed(item)]))
    : json;
}

/** What an event is about, for a problem that stands in its place. */
function describe(event: TestEventInit): string {
  const kind = event.kind;
  if (kind?.case === "testEnded" || kind?.case === "testStarted" || kind?.case === "attemptEnded") {
    return `${kind.case} of ${kind.value.test?.file ?? ""} ${kind.value.test?.name ?? ""}`.slice(0, 1024);
  }
  return kind?.case ?? "an event without a kind";
}

function problemEvent(severity: ProblemSeverity, message: string, place: string): TestEventInit {
  return {
    time: timestampNow(),
    kind: {
      case: "problem",
      value: {
        severity,
        message: message.slice(0, 65_536).toWellFormed(),
        place: place.slice(0, 1024).toWellFormed(),
      },
    },
  };
}

/** Events of consecutive lines. Every line is an event: one that cannot be read is a problem that names it. */
export interface SpoolBatch {
  /** The line of the first event, from 1. */
  readonly firstPosition: number;
  /** At least one. */
  readonly events: readonly TestEvent[];
  /** How long the lines are together. */
  readonly bytes: number;
}

export interface FollowOptions {
  /** Ends at once when aborted, without an error. */
  readonly signal: AbortSignal;
  /** When aborted, nothing more is written: what is there is read to its end, and that is all. */
  readonly written?: AbortSignal | undefined;
}

/** Reads a spool file while it is written. The file need not exist yet. */
export async function* followSpool(
  path: string,
  options: FollowOptions,
): AsyncGenerator<SpoolBatch, void, undefined> {
  const { signal, written } = options;
  const lines = new SpoolLines();
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  let file: FileHandle | undefined;
  let offset = 0;
  const changes = watchFile(path, [signal, ...(written ? [written] : [])]);
  try {
    while (!signal.aborted) {
      // Asked before reading: what was written until then is read, and nothing comes after.
      const last = written?.aborted ?? false;
      file ??= await openIfThere(path);
      const { bytesRead } = (await file?.read(buffer, 0, READ_BYTES, offset)) ?? { bytesRead: 0 };
      offset += bytesRead;
      for (const batch of lines.add(buffer.subarray(0, bytesRead))) {
        yield batch;
        if (signal.aborted) {
          return;
        }
      }
      if (bytesRead === 0) {
        if (last) {
          yield* lines.end();
          return;
        }
        await changes.next(file !== undefined);
      }
    }
  } finally {
    changes.close();
    await file?.close();
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, "r");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return undefined;
    }
    throw error;
  }
}

/** Cuts what was read into lines, and makes events of them. */
class SpoolLines {
  /** Bytes of a line whose end was not read yet. */
  #partial: Buffer[] = [];
  #partialBytes = 0;
  /** True while the rest of a line that is too long is skipped. */
  #skipping = false;
  #position = 0;

  *add(chunk: Buffer): Generator<SpoolBatch, void, undefined> {
    let events: TestEvent[] = [];
    let bytes = 0;
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      bytes += this.#partialBytes + end - start;
      events.push(this.#lineEnded(chunk.subarray(start, end)));
      start = end + 1;
      if (events.length === MAX_BATCH) {
        yield this.#batch(events, bytes);
        events = [];
        bytes = 0;
      }
    }
    this.#keep(chunk.subarray(start));
    if (events.length > 0) {
      yield this.#batch(events, bytes);
    }
  }

  /** What remains is a line that was not written to its end. */
  *end(): Generator<SpoolBatch, void, undefined> {
    const bytes = this.#partialBytes;
    if (bytes > 0 || this.#skipping) {
      yield this.#batch([this.#lineEnded(Buffer.alloc(0), true)], bytes);
    }
  }

  #batch(events: readonly TestEvent[], bytes: number): SpoolBatch {
    return { firstPosition: this.#position - events.length + 1, events, bytes };
  }

  #keep(bytes: Buffer): void {
    if (bytes.length === 0 || this.#skipping) {
      return;
    }
    if (this.#partialBytes + bytes.length > MAX_SPOOL_LINE_BYTES) {
      this.#partial = [];
      this.#partialBytes = 0;
      this.#skipping = true;
      return;
    }
    // The chunk's memory is read into again.
    this.#partial.push(Buffer.from(bytes));
    this.#partialBytes += bytes.length;
  }

  #lineEnded(rest: Buffer, cut = false): TestEvent {
    this.#keep(rest);
    const text = Buffer.concat(this.#partial, this.#partialBytes).toString("utf8");
    const tooLong = this.#skipping;
    this.#partial = [];
    this.#partialBytes = 0;
    this.#skipping = false;
    this.#position += 1;
    if (tooLong) {
      return this.#problem("is longer than 8 MiB and was left out");
    }
    try {
      const event = fromJsonString(TestEventSchema, text, { ignoreUnknownFields: true });
      return event.kind.case === undefined ? this.#problem("holds no event that is known here") : event;
    } catch (error) {
      return this.#problem(
        cut
          ? "is cut off: the reporter ended while it wrote"
          : `is not an event: ${messageOf(error)}; it begins with ${JSON.stringify(text.slice(0, 80))}`,
      );
    }
  }

  #problem(what: string): TestEvent {
    return create(
      TestEventSchema,
      problemEvent(
        ProblemSeverity.ERROR,
        `line ${this.#position} of what the reporter wrote ${what}`,
        `line ${this.#position}`,
      ),
    );
  }
}

interface Changes {
  /** Resolves when the file may have changed. `exists` tells that it can be watched by now. */
  next(exists: boolean): Promise<void>;
  close(): void;
}

/** The file system's word on changes, and a look now and then, since it does not give it everywhere. */
function watchFile(path: string, signals: readonly AbortSignal[]): Changes {
  const closing = new AbortController();
  const any = AbortSignal.any([closing.signal, ...signals]);
  let changed = false;
  let wake: (() => void) | undefined;
  let watching = false;
  let watchable = true;

  function onChange(): void {
    changed = true;
    wake?.();
  }

  function begin(): void {
    try {
      const watcher = watch(path, { signal: closing.signal, persistent: false }, onChange);
      watcher.on("error", () => {
        watching = false;
        watchable = false;
        watcher.close();
      });
      watching = true;
    } catch {
      // No watches left, or a file system without: polling does.
      watchable = false;
    }
  }

  return {
    async next(exists) {
      if (exists && watchable && !watching) {
        begin();
        // What was written before the watch began does not count as a change.
        return;
      }
      if (!changed && !signals.some((signal) => signal.aborted)) {
        const timer = new AbortController();
        await Promise.race([
          sleep(watching ? WATCHED_POLL_MS : POLL_MS, undefined, {
            signal: AbortSignal.any([any, timer.signal]),
          }).catch(() => undefined),
          new Promise<void>((resolve) => {
            wake = resolve;
          }),
        ]);
        timer.abort();
        wake = undefined;
      }
      changed = false;
    },
    close() {
      closing.abort();
    },
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
