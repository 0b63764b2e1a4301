import type { Clock } from "@toolplane/framework";
import type { Logger } from "pino";
import type { EventLog } from "../event-log/event-log.ts";
import type { Database } from "../storage/database.ts";
import { openAnnouncements } from "./announcements.ts";
import { createLeases, type Leases } from "./leases.ts";
import { startReaper } from "./reaper.ts";
import { startRetention } from "./retention.ts";
import { createRunWriter } from "./run-writer.ts";
import { createRuns, type Runs } from "./runs.ts";

export interface TestRunSettings {
  /** How long runs are kept after their end, in milliseconds. */
  readonly retentionMs: number;
  /** How many runs of a project are kept. */
  readonly maxRunsPerProject: number;
  /** How many events a run may have. */
  readonly maxEventsPerRun: number;
}

export interface TestRunsOptions {
  readonly database: Pick<Database, "kysely" | "listen">;
  readonly eventLog: EventLog;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly settings: TestRunSettings;
  /** Names this replica among all, anew with each start. */
  readonly replica: string;
}

/** Test runs on this replica. */
export interface TestRuns {
  readonly runs: Runs;
  readonly leases: Leases;
  close(): Promise<void>;
}

export async function openTestRuns(options: TestRunsOptions): Promise<TestRuns> {
  const { database, eventLog, clock, logger, settings, replica } = options;
  const announcements = await openAnnouncements(database);
  const writer = createRunWriter(database, eventLog);
  const runs = createRuns({
    database,
    eventLog,
    announcements,
    writer,
    clock,
    maxEventsPerRun: settings.maxEventsPerRun,
  });
  const leases = createLeases({ database, announcements, replica });
  const reaper = startReaper({ database, runs, clock, logger });
  const retention = startRetention({ database, eventLog, clock, logger, ...settings });
  return {
    runs,
    leases,
    async close() {
      await Promise.all([reaper.close(), retention.close()]);
      await announcements.close();
    },
  };
}
