import type { Server } from "./serve.ts";

/**
 * Closes a server on SIGINT or SIGTERM and then ends the process; a second signal ends it at once.
 *
 * @param signals where signals come from. Default: the process.
 * @returns stops listening to signals
 */
export function closeOnSignals(server: Pick<Server, "close" | "logger">, signals: NodeJS.Process = process): () => void {
  let closing = false;
  function onSignal(signal: NodeJS.Signals) {
    if (closing) {
      server.logger.warn({ signal }, "second signal: stopping at once");
      signals.exit(130);
    }
    closing = true;
    server.close().then(
      () => signals.exit(0),
      (error: unknown) => {
        server.logger.error({ err: error }, "could not close cleanly");
        signals.exit(1);
      },
    );
  }
  signals.on("SIGINT", onSignal);
  signals.on("SIGTERM", onSignal);
  return () => {
    signals.off("SIGINT", onSignal);
    signals.off("SIGTERM", onSignal);
  };
}
