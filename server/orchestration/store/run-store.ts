import type { Clock, Logger } from "@toolplane/framework";
import type { EventLog } from "../../event-log/event-log.ts";
import type { Database } from "../../storage/database.ts";
import type { Claims } from "../engine/journal.ts";
import type { RunJobs } from "../jobs.ts";
import { createRuns, type Runs } from "../runs.ts";
import { openRunAnnouncements } from "./announcements.ts";
import { createClaims } from "./claims.ts";
import { createEventEncoder } from "./events.ts";
import { createRedactor } from "./redact.ts";

export interface RunStoreOptions {
  readonly database: Pick<Database, "kysely" | "listen">;
  readonly eventLog: EventLog;
  readonly jobs: Pick<RunJobs, "send">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Values that nobody is to be told: see `createRedactor`. */
  readonly secrets: () => readonly string[];
  /** How many runs may wait for a worker, on all replicas together. */
  readonly maxQueuedRuns: number;
  /** How many events a run may have before details are left out; with twice as many, it fails. */
  readonly maxEventsPerRun: number;
}

/** Runs as they are kept, for those who ask and for those who work on them. */
export interface RunStore {
  readonly runs: Runs;
  readonly claims: Claims;
  close(): Promise<void>;
}

export async function openRunStore(options: RunStoreOptions): Promise<RunStore> {
  const redactor = createRedactor(options.secrets);
  const encoder = createEventEncoder(redactor);
  const announcements = await openRunAnnouncements(options.database);
  const parts = { ...options, redactor, encoder, announcements };
  return {
    runs: createRuns(parts),
    claims: createClaims(parts),
    close: () => announcements.close(),
  };
}
