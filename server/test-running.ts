import { randomUUID } from "node:crypto";
import type { ConnectRouter } from "@connectrpc/connect";
import { type Clock, type HttpHandler, type Logger, principalOf } from "@toolplane/framework";
import type { TestingSettings } from "./config/testing.ts";
import type { EventLog } from "./event-log/event-log.ts";
import { type Part, PartsInReverse } from "./parts.ts";
import type { Database } from "./storage/database.ts";
import { createComparer } from "./test-runs/comparison/comparer.ts";
import { storedRuns } from "./test-runs/comparison/run-source.ts";
import { createExecution } from "./test-runs/execution/execution.ts";
import { createTestLookup } from "./test-runs/execution/test-lookup.ts";
import { createHistorian } from "./test-runs/history/historian.ts";
import { storedHistory } from "./test-runs/history/source.ts";
import { createExporter } from "./test-runs/reports/export.ts";
import { createImporter } from "./test-runs/reports/import.ts";
import { openTestRuns } from "./test-runs/test-runs.ts";

export interface OpenTestRunningOptions {
  readonly settings: TestingSettings;
  readonly database: Database;
  readonly eventLog: EventLog;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Of which runners get what is allowed. */
  readonly env: NodeJS.ProcessEnv;
}

/** Test runs with all that answers `toolplane.testing.v1.TestRunService`. */
export interface TestRunning extends Part {
  readonly routes: (router: ConnectRouter) => void;
  /** `/test-runs/{id}/events`. */
  readonly http: HttpHandler;
  /** Ends all watching, for clients to go on at another server. */
  drain(): void;
}

export async function openTestRunning(options: OpenTestRunningOptions): Promise<TestRunning> {
  const { settings, database, eventLog, clock, logger, env } = options;
  const parts = new PartsInReverse();
  try {
    const testRuns = parts.own(
      await openTestRuns({ database, eventLog, clock, logger, settings, replica: randomUUID() }),
    );
    const { runs, leases, queries } = testRuns;
    const execution = parts.own(
      createExecution({ runs, leases, lookup: createTestLookup(database), settings, clock, logger, env }),
    );
    const routes = testRuns.routes(
      {
        async startTestRun(request, { values }) {
          return { run: await execution.startTestRun(request, principalOf(values).id) };
        },
        importTestResults: createImporter({ runs, maxImportBytes: settings.maxImportBytes }),
        exportTestResults: createExporter({ runs, queries }),
        ...createComparer({ source: storedRuns({ database, queries }) }),
        ...createHistorian({ source: storedHistory(database) }),
      },
      execution.projects(),
    );
    return { routes, http: testRuns.http, drain: () => testRuns.drain(), close: () => parts.close() };
  } catch (error) {
    await parts.close();
    throw error;
  }
}
