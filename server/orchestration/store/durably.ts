import { type Clock, DomainError } from "@toolplane/framework";
import {
  type Append,
  type Appended,
  ClosedStreamError,
  type EventLog,
  UnknownStreamError,
} from "../../event-log/event-log.ts";
import { isTransientDatabaseError } from "../../storage/transient.ts";
import { StaleRunError } from "./write.ts";

/**
 * As long as the database is away, nobody else can take the run over either. So what was done meanwhile is not lost, unless
 * another worker is faster when the database is back.
 */
const PATIENCE_MS = 120_000;
const PAUSE_MS = 500;

/**
 * Appends as a writer, and again while that may help: what was appended already is not appended twice. Throws a
 * `StaleRunError` when the stream is closed or removed.
 */
export function appendDurably(
  { eventLog, clock }: { readonly eventLog: Pick<EventLog, "append">; readonly clock: Clock },
  append: Append & Required<Pick<Append, "writer">>,
): Promise<Appended> {
  return durably(clock, async () => {
    try {
      return await eventLog.append(append);
    } catch (error) {
      if (error instanceof ClosedStreamError || error instanceof UnknownStreamError) {
        throw new StaleRunError("the run has ended, or was removed", { cause: error });
      }
      throw error;
    }
  });
}

/** Does what may be done twice, and again while the database is away. */
export async function durably<T>(clock: Clock, work: () => Promise<T>): Promise<T> {
  const deadline = clock.monotonic() + PATIENCE_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const shutsDown = error instanceof DomainError && error.init.reason === "SHUTTING_DOWN";
      if (!isTransientDatabaseError(error) || shutsDown || clock.monotonic() >= deadline) {
        throw error;
      }
      await pause(clock, PAUSE_MS);
    }
  }
}

function pause(clock: Clock, ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  clock.after(ms, resolve);
  return promise;
}
