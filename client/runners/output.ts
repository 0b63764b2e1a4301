import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clock } from "@toolplane/framework";
import type { EventSink } from "./event-sink.ts";
import type { OutputParser, TestEventInit } from "./runner.ts";

/** What an Output event may hold. */
const MAX_TEXT = 65_536;
/** How long lines are collected into one event, and how long the beginning of a line waits for its end. */
const COLLECT_MS = 25;
const PARTIAL_MS = 500;
/** A longer line is parsed in pieces. */
const MAX_LINE = 1024 * 1024;

/** What becomes of one of the streams that a runner writes. */
export interface OutputTarget {
  readonly stderr: boolean;
  readonly sink: EventSink;
  readonly clock: Clock;
  /** Told of everything that was read. */
  readonly onText: (text: string) => void;
}

/** Makes Output events of a stream until it ends: of whole lines as far as possible, at most 40 a second. */
export async function readOutput(stream: AsyncIterable<Uint8Array>, target: OutputTarget): Promise<void> {
  const { sink, clock } = target;
  let waiting = "";
  let waitingSince = 0;
  let timer: (() => void) | undefined;

  function send(length: number): Promise<void> {
    const text = waiting.slice(0, length);
    waiting = waiting.slice(length);
    return sink.push(outputEvents(text, target.stderr, clock), text.length);
  }

  /** Sends whole lines, and the beginning of another when it has waited. */
  function onTime(): void {
    const lines = waiting.lastIndexOf("\n") + 1;
    if (lines > 0 || clock.monotonic() - waitingSince >= PARTIAL_MS) {
      void send(lines || waiting.length);
      waitingSince = clock.monotonic();
    }
    timer = waiting === "" ? undefined : clock.after(COLLECT_MS, onTime);
  }

  for await (const text of decoded(stream)) {
    target.onText(text);
    if (waiting === "") {
      waitingSince = clock.monotonic();
    }
    waiting += text;
    if (waiting.length >= MAX_TEXT) {
      await send(waiting.lastIndexOf("\n") + 1 || waiting.length);
    }
    if (waiting !== "") {
      timer ??= clock.after(COLLECT_MS, onTime);
    }
  }
  timer?.();
  await send(waiting.length);
}

/** Has each line of a stream made into events by a parser. */
export async function readParsed(
  stream: AsyncIterable<Uint8Array>,
  parser: OutputParser,
  target: Pick<OutputTarget, "sink" | "onText">,
): Promise<void> {
  const { sink } = target;
  let waiting = "";
  for await (const text of decoded(stream)) {
    target.onText(text);
    const lines = (waiting + text).split("\n");
    waiting = lines.pop() ?? "";
    if (waiting.length > MAX_LINE) {
      lines.push(waiting);
      waiting = "";
    }
    await sink.push(
      lines.flatMap((line) => parser.line(line.endsWith("\r") ? line.slice(0, -1) : line)),
      text.length,
    );
  }
  const last = waiting === "" ? [] : parser.line(waiting);
  await sink.push([...last, ...parser.end()], waiting.length);
}

/** Text of bytes; a character may begin in one chunk and end in the next, and what is no UTF-8 is replaced. */
async function* decoded(stream: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  try {
    for await (const chunk of stream) {
      const text = decoder.decode(chunk, { stream: true });
      if (text !== "") {
        yield text;
      }
    }
  } catch {
    // Whoever wrote it was killed, or the pipe was given up.
  }
  const rest = decoder.decode();
  if (rest !== "") {
    yield rest;
  }
}

/** Output events of a text: as few as possible, cut at line ends where they can be. */
export function outputEvents(text: string, stderr: boolean, clock: Clock): TestEventInit[] {
  const time = timestampFromMs(Math.round(clock.now()));
  const events: TestEventInit[] = [];
  for (let rest = text; rest !== ""; ) {
    const piece = rest.slice(0, pieceLength(rest));
    rest = rest.slice(piece.length);
    events.push({ time, kind: { case: "output", value: { text: piece, stderr } } });
  }
  return events;
}

function pieceLength(text: string): number {
  if (text.length <= MAX_TEXT) {
    return text.length;
  }
  const lineEnd = text.lastIndexOf("\n", MAX_TEXT - 1) + 1;
  // Not between the halves of a surrogate pair.
  return lineEnd || (text.slice(0, MAX_TEXT).isWellFormed() ? MAX_TEXT : MAX_TEXT - 1);
}
