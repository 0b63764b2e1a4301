import type { Clock } from "@toolplane/framework";
import type { Logger } from "pino";
import type { KeyStore } from "./store.ts";

const MINUTE = 60_000;
/** How long uses are gathered before they are written, in milliseconds. */
const GATHER_MS = 5_000;

/** Notes when keys are used, to the minute: however often that is, each key is written once a minute at most. */
export interface LastUse {
  mark(id: string): void;
  /** Writes what was gathered, and ends. */
  close(): Promise<void>;
}

export function createLastUse(store: Pick<KeyStore, "touch">, clock: Clock, logger: Logger): LastUse {
  /** The last minute in which a key was marked. */
  const minutes = new Map<string, number>();
  let gathered = new Map<string, Date>();
  let cancelTimer: (() => void) | undefined;
  let writing = Promise.resolve();

  async function write(): Promise<void> {
    const uses = gathered;
    gathered = new Map();
    try {
      await store.touch(uses);
    } catch (error) {
      logger.debug({ err: error }, "the last uses of API keys could not be written; trying again");
      gathered = new Map([...uses, ...gathered]);
      schedule();
    }
  }

  function schedule(): void {
    cancelTimer ??= clock.after(GATHER_MS, () => {
      cancelTimer = undefined;
      writing = write();
    });
  }

  return {
    mark(id) {
      const minute = Math.floor(clock.now() / MINUTE);
      if (minutes.get(id) !== minute) {
        minutes.set(id, minute);
        gathered.set(id, new Date(minute * MINUTE));
        schedule();
      }
    },
    async close() {
      await writing;
      cancelTimer?.();
      if (gathered.size > 0) {
        await store.touch(gathered).catch((error: unknown) => {
          logger.debug({ err: error }, "the last uses of API keys could not be written");
        });
      }
    },
  };
}
