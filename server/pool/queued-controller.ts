import type { Dispatcher } from "undici";

type Raw = Exclude<Dispatcher.DispatchController["rawHeaders"], undefined>;

/** What a request does once it is on a connection. */
export interface Transfer {
  abort(reason: Error): void;
  pause(): void;
  resume(): void;
}

/** The controller of a request from the moment it is dispatched: before it has a connection, and on any that it gets. */
export class QueuedController implements Dispatcher.DispatchController {
  rawHeaders: Raw = null;
  rawTrailers: Raw = null;
  readonly #aborting = new AbortController();
  #transfer: Transfer | undefined;
  #paused = false;
  #reason: Error | null = null;

  /** Aborted when the request is. */
  get signal(): AbortSignal {
    return this.#aborting.signal;
  }

  get aborted(): boolean {
    return this.#reason !== null;
  }

  get paused(): boolean {
    return this.#paused;
  }

  get reason(): Error | null {
    return this.#reason;
  }

  /** From now on the request is carried by `transfer`. */
  attach(transfer: Transfer): void {
    this.#transfer = transfer;
    if (this.#reason) {
      transfer.abort(this.#reason);
    } else if (this.#paused) {
      transfer.pause();
    }
  }

  abort(reason: Error): void {
    if (!this.#reason) {
      this.#reason = reason;
      this.#aborting.abort(reason);
      this.#transfer?.abort(reason);
    }
  }

  pause(): void {
    this.#paused = true;
    this.#transfer?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#transfer?.resume();
  }
}
