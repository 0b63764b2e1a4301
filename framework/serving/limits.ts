import { MAX_TIMER_MS } from "../clock.ts";

/** What a client may ask of a server. Excess is refused, as early as it can be noticed. */
export interface ServeLimits {
  /** The largest message in bytes, as it arrives and after decompression. Default: 4 MiB. */
  readonly maxMessageBytes: number;
  /** The largest request header block in bytes, with the path. Default: 16 KiB. */
  readonly maxHeaderBytes: number;
  /** Open connections; more are closed at once. Default: 10,000. */
  readonly maxConnections: number;
  /** Streams at once in one HTTP/2 connection. Default: 256. */
  readonly maxConcurrentStreams: number;
  /** Requests at once in the whole server; more are refused with RESOURCE_EXHAUSTED. Default: 2,000. */
  readonly maxRequests: number;
  /** The longest deadline; later ones, and none, become this one. In milliseconds. Default: 24 h. */
  readonly maxTimeoutMs: number;
  /** How long a connection may take to say what it wants: TLS, protocol, headers. In milliseconds. Default: 10 s. */
  readonly headersTimeoutMs: number;
  /** How long a body with one message may take to arrive, in milliseconds. Streams are not limited. Default: 60 s. */
  readonly requestTimeoutMs: number;
  /**
   * In milliseconds: how long a connection without requests is kept, and how long a client may leave an answer
   * unread. Default: 5 min.
   */
  readonly idleTimeoutMs: number;
  /**
   * Requests that one HTTP/2 connection may cancel in a burst, and from then on every second, before it is closed
   * (CVE-2023-44487, "rapid reset"). Default: 1,000 and 33, those of nghttp2.
   */
  readonly resetBurst: number;
  readonly resetsPerSecond: number;
}

export const defaultLimits: ServeLimits = {
  maxMessageBytes: 4 * 1024 * 1024,
  maxHeaderBytes: 16 * 1024,
  maxConnections: 10_000,
  maxConcurrentStreams: 256,
  maxRequests: 2_000,
  maxTimeoutMs: 24 * 60 * 60 * 1000,
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 60_000,
  idleTimeoutMs: 300_000,
  resetBurst: 1_000,
  resetsPerSecond: 33,
};

/** Fills in defaults. Timeouts beyond what Node's timers can hold would fire at once, and are shortened. */
export function completeLimits(limits: Partial<ServeLimits> = {}): ServeLimits {
  const complete = { ...defaultLimits, ...limits };
  return { ...complete, maxTimeoutMs: Math.min(complete.maxTimeoutMs, MAX_TIMER_MS) };
}
