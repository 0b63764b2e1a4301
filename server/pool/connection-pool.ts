import type { Transport } from "@connectrpc/connect";
import type { UniversalClientFn } from "@connectrpc/connect/protocol";
import type { Principal } from "@toolplane/framework";
import type { Dispatcher } from "undici";
import type { CloseReason } from "./connection.ts";
import type { Target } from "./target.ts";

/** Shared connections to backends, under one set of limits for HTTP/1.1 and HTTP/2. */
export interface ConnectionPool {
  /** A transport that speaks the target's protocol over pooled connections and sends the target's headers. */
  transport(target: Target, options?: TransportOptions): Transport;
  /**
   * From now on, transports to the URL's origin use `client` instead of connections: a process that calls itself over
   * the network would have to trust its own certificate, and to have one for clients too. The client is made for the
   * principal that the transport is asked for.
   */
  attach(url: string, clientFor: (principal: Principal | undefined) => UniversalClientFn): void;
  /** For plain HTTP through undici. */
  readonly dispatcher: Dispatcher;
  /** Opens a connection to each target ahead of the first call; failures are only logged. */
  warm(targets: Iterable<Target>): Promise<void>;
  stats(): PoolStats;
  close(): Promise<void>;
}

export interface TransportOptions {
  /** The largest message that is read, in bytes, decompressed. Default 4 MiB. */
  readonly maxMessageBytes?: number;
  /** Whom calls within the process act for; others are told nothing of it. Default: nobody. */
  readonly principal?: Principal;
}

/** A look at a pool. Counts begin with the pool and only grow; times are in milliseconds. */
export interface PoolStats {
  /** Open connections and those being opened. */
  readonly connections: readonly ConnectionStats[];
  /** Requests that were given a connection, and how many of them found an open one. */
  readonly requests: number;
  readonly reused: number;
  /** Connections opened. */
  readonly opened: number;
  /** Attempts to connect that failed. */
  readonly connectFailures: number;
  /** Connections closed, or lost, by why. */
  readonly closed: Readonly<Record<CloseReason, number>>;
  /** Requests that wait for a connection now. */
  readonly waiting: number;
  /** Requests that had to wait, if only for a connection to be opened, whether or not they got one. */
  readonly waits: { readonly count: number; readonly totalMs: number; readonly maxMs: number };
  /** Requests that were refused because too many waited already, or that waited too long. */
  readonly refused: number;
}

export interface ConnectionStats {
  /** Like `https://host:port`. */
  readonly origin: string;
  /** Undefined until it is open. */
  readonly protocol: "h1" | "h2" | undefined;
  /** `draining`: takes no more requests and closes after its last one. */
  readonly state: "connecting" | "open" | "draining";
  /** Since it was opened, or since connecting began. */
  readonly ageMs: number;
  /** Since its last request ended; 0 while there are some. */
  readonly idleMs: number;
  readonly activeRequests: number;
  /** How many requests it can carry at once. */
  readonly maxConcurrentRequests: number;
  readonly requests: number;
  readonly failures: number;
  /** As they are on the wire, or inside of TLS. */
  readonly bytesRead: number;
  readonly bytesWritten: number;
}
