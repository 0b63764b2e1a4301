import type { ConnectRouter } from "@connectrpc/connect";
import type { Clock, HttpHandler } from "@toolplane/framework";
import type { Logger } from "pino";
import type { EventLog } from "../event-log/event-log.ts";
import type { Database } from "../storage/database.ts";
import { openAnnouncements } from "./announcements.ts";
import { createLeases, type Leases } from "./leases.ts";
import { createProgressBoard } from "./progress.ts";
import { createQueries, type TestRunQueries } from "./queries.ts";
import { startReaper } from "./reaper.ts";
import { startRetention } from "./retention.ts";
import { createRunWriter } from "./run-writer.ts";
import { createRuns, type Runs } from "./runs.ts";
import { type ConfiguredProject, type OtherHandlers, testRunRoutes } from "./service.ts";
import { eventsOverHttp } from "./sse.ts";
import { createRunWatchers } from "./watch.ts";

export type { ClaimedRun, Leases, ProjectCap } from "./leases.ts";
export type { TestRunQueries } from "./queries.ts";
export type { RunResults } from "./run-results.ts";
export type { NewRun, RunOutcome, Runs } from "./runs.ts";
export type { ConfiguredProject, OtherHandlers } from "./service.ts";
export { isEventsPath } from "./sse.ts";

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
  readonly queries: TestRunQueries;
  /** `toolplane.testing.v1.TestRunService`, with the methods that other parts answer. */
  routes(others: OtherHandlers, projects: readonly ConfiguredProject[]): (router: ConnectRouter) => void;
  /** `/test-runs/{id}/events`; see `isEventsPath`. */
  readonly http: HttpHandler;
  /** How many watch runs now. */
  readonly watchers: () => number;
  /** Ends all watching, for clients to go on at another server. */
  drain(): void;
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
  const queries = createQueries(database);
  const progress = createProgressBoard(writer, clock);
  const watchers = createRunWatchers({ runs, eventLog, progress, clock });
  return {
    runs,
    leases,
    queries,
    routes: (others, projects) => testRunRoutes({ runs, queries, watchers, clock, others, projects }),
    http: eventsOverHttp({ runs, watchers, clock, logger }),
    watchers: () => watchers.size,
    drain: () => watchers.drain(),
    async close() {
      watchers.drain();
      await Promise.all([reaper.close(), retention.close()]);
      await announcements.close();
    },
  };
}
