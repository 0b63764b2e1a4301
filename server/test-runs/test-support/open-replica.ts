import { randomUUID } from "node:crypto";
import { type Clock, systemClock } from "@toolplane/framework";
import { onTestFinished } from "vitest";
import type { EventLog } from "../../event-log/event-log.ts";
import { openEventLog } from "../../event-log/open-event-log.ts";
import type { Database } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openTestRuns, type TestRunSettings, type TestRuns } from "../test-runs.ts";

export interface Replica extends TestRuns {
  readonly eventLog: EventLog;
  readonly name: string;
}

const defaults: TestRunSettings = {
  retentionMs: 86_400_000,
  maxRunsPerProject: 1_000,
  maxEventsPerRun: 100_000,
};

/** A server's test runs, closed when the test is over. */
export async function openReplica(
  database: Pick<Database, "kysely" | "listen">,
  settings: Partial<TestRunSettings> = {},
  clock: Clock = systemClock,
): Promise<Replica> {
  const eventLog = await openEventLog({ database, clock: systemClock, logger: silentLogger });
  const name = randomUUID();
  const testRuns = await openTestRuns({
    database,
    eventLog,
    clock,
    logger: silentLogger,
    settings: { ...defaults, ...settings },
    replica: name,
  });
  onTestFinished(async () => {
    await testRuns.close();
    await eventLog.close();
  });
  return { ...testRuns, eventLog, name };
}
