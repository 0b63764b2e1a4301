import { type ResumeOptions, resumingStream } from "./resuming-stream.ts";

/** An event that counts. */
interface Counted {
  readonly sequence: bigint;
}

/** What the messages of a watch have in common: those that are not listed here are a watch's own. */
type Message<Subject, Event extends Counted> =
  | { readonly case: "connected"; readonly subject: Subject | undefined }
  | { readonly case: "events"; readonly events: readonly Event[] }
  | { readonly case: "caughtUp"; readonly sequence: bigint };

/** How a watch speaks: its messages, and which of them are the last. */
export interface EventWatch<Response, Subject, Event extends Counted> {
  /** Opens a stream that begins after an event. */
  open(afterSequence: bigint, signal: AbortSignal): AsyncIterable<Response>;
  /** The message as every watch has it. Undefined: it is this watch's own. */
  read(response: Response): Message<Subject, Event> | undefined;
  /** The last event of something that has ended. Undefined: it goes on. */
  endOf(subject: Subject): bigint | undefined;
  isLast(event: Event): boolean;
}

/** What a watch tells. */
export type WatchNews<Response, Subject, Event extends Counted> =
  | { readonly kind: "connected"; readonly subject: Subject }
  | { readonly kind: "event"; readonly event: Event }
  | { readonly kind: "caught-up"; readonly sequence: number }
  | { readonly kind: "own"; readonly response: Response };

/**
 * Events from the one after `afterSequence` to the last one, live: a lost connection is opened again after the last event
 * that was seen, so nothing is missing and nothing comes twice.
 */
export async function* watchEvents<Response, Subject, Event extends Counted>(
  watch: EventWatch<Response, Subject, Event>,
  { afterSequence = 0, ...options }: ResumeOptions & { readonly afterSequence?: number | undefined },
): AsyncGenerator<WatchNews<Response, Subject, Event>, void, undefined> {
  let sequence = BigInt(afterSequence);
  let isConnected = false;
  let isCaughtUp = false;
  for await (const response of resumingStream((signal) => watch.open(sequence, signal), options)) {
    const message = watch.read(response);
    switch (message?.case) {
      case "connected": {
        const { subject } = message;
        if (subject === undefined) break;
        if (!isConnected) yield { kind: "connected", subject };
        isConnected = true;
        // Nothing follows the last event: a stream that begins behind it just ends.
        const end = watch.endOf(subject);
        if (end !== undefined && end <= sequence) return;
        break;
      }
      case "events":
        for (const event of message.events) {
          if (event.sequence <= sequence) continue;
          sequence = event.sequence;
          yield { kind: "event", event };
          if (watch.isLast(event)) return;
        }
        break;
      case "caughtUp":
        if (isCaughtUp) break;
        isCaughtUp = true;
        yield { kind: "caught-up", sequence: Number(message.sequence) };
        break;
      case undefined:
        yield { kind: "own", response };
        break;
    }
  }
}
