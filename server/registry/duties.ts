import type { Clock } from "@toolplane/framework";
import type { Logger } from "pino";
import type { CatalogueChange } from "./catalogue.ts";
import type { Monitor } from "./health/monitor.ts";
import type { Duties } from "./keeper.ts";
import type { LeaseStore } from "./lease-store.ts";
import type { Refresher } from "./refresher.ts";

/** How often what nobody needs is forgotten, in turns of the keeper, which come every second. */
const TURNS_BETWEEN_HOUSEKEEPING = 600;

/**
 * After a longer time between two turns, the process was stopped, its machine slept or its clock was set: renewals that
 * were sent meanwhile wait to be read.
 */
const MAX_GAP_MS = 10_000;

export interface DutiesOptions {
  readonly leases: LeaseStore;
  readonly clock: Clock;
  readonly logger: Logger;
  startMonitor(): Monitor;
  startRefresher(): Refresher;
  keepHouse(): Promise<void>;
}

/** What the keeper does: removes expired instances, checks health, learns tools again, and forgets old things. */
export interface KeeperDuties extends Duties {
  /** Tells what has changed in the catalogue. */
  follow(changes: readonly CatalogueChange[]): void;
}

export function createDuties({
  leases,
  clock,
  logger,
  startMonitor,
  startRefresher,
  keepHouse,
}: DutiesOptions): KeeperDuties {
  let monitor: Monitor | undefined;
  let refresher: Refresher | undefined;
  let turns = 0;
  let lastTurn = 0;

  /** While nobody kept house, perhaps nobody could renew: each instance gets its full time from now on. */
  async function startLeasesAnew(): Promise<void> {
    await leases.renewAll();
    lastTurn = clock.now();
  }

  async function endLeases(): Promise<void> {
    const expired = await leases.expire();
    lastTurn = clock.now();
    if (expired.length > 0) {
      logger.info({ instances: expired.slice(0, 20), count: expired.length }, "leases ran out");
    }
  }

  return {
    follow(changes) {
      monitor?.follow(changes);
      refresher?.follow(changes);
    },
    async begin() {
      await startLeasesAnew();
      turns = 0;
      monitor = startMonitor();
      refresher = startRefresher();
    },
    async turn() {
      await (clock.now() - lastTurn > MAX_GAP_MS ? startLeasesAnew() : endLeases());
      if (turns++ % TURNS_BETWEEN_HOUSEKEEPING === 0) {
        try {
          await keepHouse();
        } catch (error) {
          logger.warn({ err: error }, "what nobody needs any more could not be removed; trying again later");
        }
      }
    },
    async end() {
      await Promise.all([monitor?.close(), refresher?.close()]);
      monitor = undefined;
      refresher = undefined;
    },
  };
}
