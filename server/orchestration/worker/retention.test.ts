import { sql } from "kysely";
import { describe, expect, it, onTestFinished } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import { UnknownStreamError } from "../../event-log/event-log.ts";
import { createStream, events, openTestLog } from "../../event-log/testing.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { startRunRetention } from "./retention.ts";

const DAY_MS = 86_400_000;

async function openAll() {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const log = await openTestLog(database);
  const clock = createFakeClock();
  const retention = startRunRetention({
    database,
    eventLog: log,
    clock,
    logger: silentLogger,
    retentionMs: 30 * DAY_MS,
  });
  onTestFinished(() => retention.close());

  /** A run with a step and an event, that ended so many days ago; null: it runs. */
  async function addRun(id: string, endedDaysAgo: number | null): Promise<void> {
    await createStream(database, log, id);
    await log.append({ stream: id, events: events("created") });
    const { rows } = await sql<{ number: string }>`
      INSERT INTO runs (id, kind, title, names, workflow_version, state, source, agents, labels, created_by, principal,
        retry_of, parent_run_id, depth, schedule, deadline, create_time, end_time, last_sequence)
      VALUES (${id}, 1, '', '{}', 0, 4, '', '{}', '{}', 'user:ada', '{}', '', '', 0, '', now(),
        now() - interval '1 year', now() - ${endedDaysAgo}::float8 * interval '1 day', 1)
      RETURNING number
    `.execute(database.kysely);
    await sql`
      INSERT INTO run_steps (run, path, position, kind, target, state, attempts)
      VALUES (${rows[0]?.number}, 'main', 0, 'tool', 'a', 3, 1)
    `.execute(database.kysely);
  }

  async function remaining(): Promise<{ runs: string[]; steps: number }> {
    const runs = await database.kysely.selectFrom("runs").select("id").orderBy("number").execute();
    const steps = await database.kysely.selectFrom("run_steps").select("path").execute();
    return { runs: runs.map(({ id }) => id), steps: steps.length };
  }
  return { log, clock, retention, addRun, remaining };
}

describe("old runs", () => {
  it("are deleted with their steps and events, and others are not", async () => {
    const { log, retention, addRun, remaining } = await openAll();
    await addRun("old", 30.1);
    await addRun("young", 29.9);
    await addRun("open", null);
    expect(await retention.look()).toBe(1);
    expect(await remaining()).toEqual({ runs: ["young", "open"], steps: 2 });
    await expect(log.read("old", 0, 10)).rejects.toBeInstanceOf(UnknownStreamError);
    expect((await log.read("young", 0, 10)).events).toHaveLength(1);
    expect(await retention.look()).toBe(0);
  });

  it("are deleted a few at a time until none is left, by several replicas at once", async () => {
    const { retention, addRun, remaining } = await openAll();
    for (let number = 0; number < 35; number++) {
      await addRun(`old-${number}`, 31 + number);
    }
    const counts = await Promise.all([retention.look(), retention.look()]);
    expect(counts[0] + counts[1]).toBe(35);
    expect(await remaining()).toEqual({ runs: [], steps: 0 });
  });

  it("are looked for every minute", async () => {
    const { clock, addRun, remaining } = await openAll();
    await addRun("old", 31);
    clock.advance(60_000);
    await expect.poll(remaining).toEqual({ runs: [], steps: 0 });
  });
});
