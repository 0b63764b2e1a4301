import type { Socket } from "node:net";
import type { H1Link } from "./h1-link.ts";
import type { H2Link } from "./h2-link.ts";

/** One open connection, whatever is spoken over it. */
export type Link = H1Link | H2Link;

/** What every link offers the broker. */
export interface BaseLink {
  /** For its counters of bytes only. */
  readonly socket: Pick<Socket, "bytesRead" | "bytesWritten">;
  /** How many requests it can carry at once now. */
  capacity(): number;
  /** True once it has closed or is about to. */
  readonly closed: boolean;
  /** Keeps the process alive while requests are running, and only then. */
  setBusy(busy: boolean): void;
  /** A request was sent, or timed out without an answer, or it is time to look: makes sure that the peer is there. */
  verify(why: "request" | "timeout" | "sweep"): void;
  /** Ends the connection; a running request fails with `reason`. */
  destroy(reason?: Error): void;
}

/** How a link tells its owner what happens. */
export interface LinkEvents {
  /** The connection is gone. Called once. */
  onClosed(reason: Error | undefined): void;
  /** The peer takes no more requests here. Running ones go on. */
  onGoaway(): void;
  /** `capacity()` may have changed. */
  onCapacity(): void;
}
