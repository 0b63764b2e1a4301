import type { Server } from "./serve.ts";

/** The part of a process that signals are about. */
export interface SignalledProcess {
  on(signal: NodeJS.Signals, listener: (signal: NodeJS.Signals) => void): unknown;
  off(signal: NodeJS.Signals, listener: (signal: NodeJS.Signals) => void): unknown;
  exit(code: number): unknown;
}

/**
 * Closes a server on SIGINT or SIGTERM and then ends the process; a second signal ends it at once.
 *
 * @returns a function that stops listening to signals
 */
export function closeOnSignals(
  server: Pick<Server, "close" | "logger">,
  subject: SignalledProcess = process,
): () => void {
  let closing = false;
  function onSignal(signal: NodeJS.Signals) {
    if (closing) {
      server.logger.warn({ signal }, "second signal: stopping at once");
      subject.exit(130);
      return;
    }
    closing = true;
    server.close().then(
      () => subject.exit(0),
      (error: unknown) => {
        server.logger.error({ err: error }, "could not close cleanly");
        subject.exit(1);
      },
    );
  }
  subject.on("SIGINT", onSignal);
  subject.on("SIGTERM", onSignal);
  return () => {
    subject.off("SIGINT", onSignal);
    subject.off("SIGTERM", onSignal);
  };
}
