import type { UniversalHandler } from "@connectrpc/connect/protocol";
import type { Clock } from "../clock.ts";

/** The streams of one method that answers with several messages. */
export interface MethodStreams {
  /** `package.Service/Method`. */
  readonly method: string;
  /** Streams that are open. */
  readonly open: number;
  /** Of them, those that wait for their client to take what was written. */
  readonly stalled: number;
  /** The longest that one of them has waited at a stretch, in milliseconds. */
  readonly longestStallMs: number;
  /** Messages written since the start. */
  readonly messages: number;
}

/** Sees whether clients keep up with what they are sent. */
export interface StreamMeter {
  /** A call begins. Undefined: its method answers with one message, there is nothing to see. */
  open(rpc: UniversalHandler): StreamObserver | undefined;
  /** The methods that were called so far. */
  read(): MethodStreams[];
}

/** Told what happens to one stream. */
export interface StreamObserver {
  /** A part of the body was written. */
  written(chunk: Uint8Array): void;
  /** The client has to take what was written before there is more. */
  stalled(): void;
  /** It has. */
  resumed(): void;
  closed(): void;
}

/** Flags of envelopes that hold no message but the end of a Connect stream, or the trailers of gRPC-Web. */
const END_FLAGS = 0b1000_0010;

interface Method {
  readonly name: string;
  readonly open: Set<Stream>;
  messages: number;
}

class Stream implements StreamObserver {
  readonly #method: Method;
  readonly #clock: Clock;
  #stalledAt: number | undefined;
  #longestMs = 0;

  constructor(method: Method, clock: Clock) {
    this.#method = method;
    this.#clock = clock;
    method.open.add(this);
  }

  get isStalled(): boolean {
    return this.#stalledAt !== undefined;
  }

  get longestStallMs(): number {
    const current = this.#stalledAt === undefined ? 0 : this.#clock.monotonic() - this.#stalledAt;
    return Math.max(this.#longestMs, current);
  }

  written(chunk: Uint8Array): void {
    if (((chunk[0] ?? 0) & END_FLAGS) === 0) {
      this.#method.messages++;
    }
  }

  stalled(): void {
    this.#stalledAt = this.#clock.monotonic();
  }

  resumed(): void {
    this.#longestMs = this.longestStallMs;
    this.#stalledAt = undefined;
  }

  closed(): void {
    this.#method.open.delete(this);
  }
}

export function createStreamMeter(clock: Clock): StreamMeter {
  const methods = new Map<UniversalHandler, Method>();
  return {
    open(rpc) {
      if (rpc.method.methodKind === "unary" || rpc.method.methodKind === "client_streaming") {
        return undefined;
      }
      let method = methods.get(rpc);
      if (method === undefined) {
        method = { name: `${rpc.service.typeName}/${rpc.method.name}`, open: new Set(), messages: 0 };
        methods.set(rpc, method);
      }
      return new Stream(method, clock);
    },
    read: () =>
      Array.from(methods.values(), ({ name, open, messages }) => {
        const streams = [...open];
        return {
          method: name,
          open: streams.length,
          stalled: streams.filter(({ isStalled }) => isStalled).length,
          longestStallMs: streams.reduce(
            (longest, { longestStallMs }) => Math.max(longest, longestStallMs),
            0,
          ),
          messages,
        };
      }),
  };
}
