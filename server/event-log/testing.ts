import { type Clock, systemClock } from "@toolplane/framework";
import { onTestFinished } from "vitest";
import type { Database } from "../storage/database.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import type { EventLog, LogNews, WatchOptions } from "./event-log.ts";
import { type EventLogOptions, type OpenEventLog, openEventLog } from "./open-event-log.ts";

/** Opens a log that is closed at the end of the test. */
export async function openTestLog(
  database: Database,
  options: Partial<EventLogOptions> & { readonly clock?: Clock } = {},
): Promise<OpenEventLog> {
  const log = await openEventLog({ database, clock: systemClock, logger: silentLogger, ...options });
  onTestFinished(() => log.close());
  return log;
}

export async function createStream({ kysely }: Database, log: EventLog, stream: string): Promise<void> {
  await kysely.transaction().execute((transaction) => log.create(transaction, stream));
}

/** Events with these texts. */
export function events(...texts: readonly string[]): Uint8Array[] {
  return texts.map((text) => Buffer.from(text));
}

export function texts(payloads: readonly Uint8Array[]): string[] {
  return payloads.map((payload) => Buffer.from(payload).toString());
}

/** A watch that runs until it ends or is stopped. */
export interface Watching {
  /** The texts of events, and in angle brackets what else was told. */
  readonly told: readonly string[];
  /** Resolves when the watch has ended, with the error that ended it. */
  readonly ended: Promise<unknown>;
  stop(): void;
}

export function startWatching(
  log: EventLog,
  stream: string,
  options: Omit<WatchOptions, "signal"> = {},
): Watching {
  const stop = new AbortController();
  const told: string[] = [];
  const run = async () => {
    let next = (options.after ?? 0) + 1;
    for await (const news of log.watch(stream, { ...options, signal: stop.signal })) {
      told.push(...describeNews(news));
      if (news.kind === "events") {
        if (news.page.first !== next) {
          throw new Error(`told ${news.page.first} instead of ${next}`);
        }
        next += news.page.events.length;
      }
    }
  };
  const ended = run().then(
    () => undefined,
    (error: unknown) => error,
  );
  onTestFinished(() => stop.abort());
  return { told, ended, stop: () => stop.abort() };
}

function describeNews(news: LogNews): string[] {
  switch (news.kind) {
    case "events":
      return texts(news.page.events);
    case "caught-up":
      return [`<caught up at ${news.sequence}>`];
    case "idle":
      return ["<idle>"];
  }
}
