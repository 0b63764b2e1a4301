import {
  TestRunEndReason,
  TestRunOrigin,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { sql } from "kysely";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { allEvents, reported } from "./test-support/events.ts";
import { openReplica } from "./test-support/open-replica.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

beforeEach(async () => {
  await sql`TRUNCATE test_runs, test_results, test_coverage, test_cases`.execute(database.kysely);
});

afterAll(() => database.close());

const ranToItsEnd = { reason: TestRunEndReason.UNSPECIFIED, message: "" };

function queued(project: string) {
  return { ...reported({ project, plan: Buffer.from(`plan of ${project}`) }), origin: TestRunOrigin.SERVER };
}

test("runs that wait are claimed once, the oldest first, within what a project may run at once", async () => {
  const [one, other] = [await openReplica(database), await openReplica(database)];
  const ids: string[] = [];
  for (const project of ["shop", "shop", "shop", "api", "docs"]) {
    ids.push((await one.runs.create(queued(project))).id);
  }
  const caps = [
    { project: "shop", maxConcurrent: 2 },
    { project: "api", maxConcurrent: 1 },
  ];
  const [mine, theirs] = await Promise.all([
    one.leases.claimQueued(caps, 2),
    other.leases.claimQueued(caps, 2),
  ]);
  const claimed = [...mine, ...theirs].map(({ run }) => run.id);
  expect(claimed.toSorted()).toEqual([ids[0], ids[1], ids[3]].toSorted());
  expect(Buffer.from(mine[0]?.plan ?? []).toString()).toMatch(/^plan of /);
  expect(await other.leases.claimQueued(caps, 10)).toEqual([]);

  const [first] = [...mine, ...theirs].filter(({ run }) => run.project === "shop");
  const woken = Promise.withResolvers<void>();
  other.leases.onQueued(() => woken.resolve());
  await one.runs.finish(first?.run.id ?? "", ranToItsEnd);
  await woken.promise;
  expect((await other.leases.claimQueued(caps, 10)).map(({ run }) => run.id)).toEqual([ids[2]]);
});

test("a run goes from waiting to running to its end", async () => {
  const { runs, leases, eventLog } = await openReplica(database);
  const { id, state, startTime } = await runs.create(queued("shop"));
  expect({ state, startTime }).toEqual({ state: TestRunState.QUEUED, startTime: undefined });
  await leases.claimQueued([{ project: "shop", maxConcurrent: 1 }], 1);
  await runs.start(id, undefined);
  await runs.start(id, undefined);
  expect(await runs.get(id)).toMatchObject({ state: TestRunState.RUNNING, startTime: expect.anything() });
  expect(await leases.renew([id, "none"])).toEqual({ held: new Set([id]) });
  await runs.finish(id, ranToItsEnd);
  expect(await leases.renew([id])).toEqual({ held: new Set() });
  const events = await allEvents(eventLog, id);
  expect(events.map(({ kind }) => kind.case)).toEqual(["created", "started", "problem", "ended"]);
  await expect(runs.start(id, undefined)).resolves.toBeUndefined();
});

test("whoever runs a run hears that it is to be cancelled, from whichever replica; a waiting one just ends", async () => {
  const [one, other] = [await openReplica(database), await openReplica(database)];
  const [running, waiting] = [await one.runs.create(queued("shop")), await one.runs.create(queued("shop"))];
  await one.leases.claimQueued([{ project: "shop", maxConcurrent: 1 }], 1);
  const heard: string[] = [];
  one.leases.onCancel((id, message) => heard.push(`${id} ${message}`));
  other.leases.onCancel((id) => heard.push(`not mine: ${id}`));
  expect((await other.runs.cancel(waiting.id, "not needed")).state).toBe(TestRunState.CANCELLED);
  expect((await other.runs.cancel(running.id, "stop")).endTime).toBeUndefined();
  await expect.poll(() => heard).toEqual([`${running.id} stop`]);
  // Who has missed it hears of it with the next renewal.
  await one.leases.renew([running.id]);
  expect(heard).toHaveLength(2);
  const end = other.runs.waitForEnd(running.id, 60_000, new AbortController().signal);
  await one.runs.finish(running.id, { reason: TestRunEndReason.CANCELLED, message: "stop" });
  expect((await end).state).toBe(TestRunState.CANCELLED);
});

test("no more runs may wait than are allowed", async () => {
  const { runs } = await openReplica(database);
  await runs.create({ ...queued("shop"), maxQueued: 1 });
  await expect(runs.create({ ...queued("shop"), maxQueued: 1 })).rejects.toMatchObject({
    init: { reason: "TEST_RUN_QUEUE_FULL" },
  });
  const { rows } = await sql`SELECT FROM event_streams`.execute(database.kysely);
  const runRows = await sql`SELECT FROM test_runs`.execute(database.kysely);
  expect(rows.length).toBeGreaterThanOrEqual(runRows.rows.length);
});
