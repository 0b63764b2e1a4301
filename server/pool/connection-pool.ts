import type { Transport } from "@connectrpc/connect";
import type { UniversalClientFn } from "@connectrpc/connect/protocol";
import type { Principal } from "@toolplane/framework";
import type { Dispatcher } from "undici";
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

export interface PoolStats {
  readonly connections: readonly ConnectionStats[];
  /** Requests sent, and how many of them found an open connection. */
  readonly requests: number;
  readonly reused: number;
}

export interface ConnectionStats {
  readonly origin: string;
  readonly protocol: "h1" | "h2";
  readonly ageMs: number;
  readonly activeRequests: number;
  readonly requests: number;
  readonly failures: number;
}
