import { fork } from "node:child_process";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createIdempotency, type IdempotentOutcome } from "@toolplane/framework/policies";
import { sql } from "kysely";
import { expect, it, onTestFinished } from "vitest";
import { type Database, openDatabase } from "../storage/database.ts";
import { idempotencyMigration } from "../storage/migrations/0003-idempotency.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { createTestDatabaseUrl } from "../storage/testing.ts";
import { openIdempotencyStore } from "./store.ts";

const DAY_MS = 86_400_000;
const request = { key: "k", fingerprint: "a", leaseMs: 60_000, retentionMs: DAY_MS };

const success = (text: string): IdempotentOutcome => ({ kind: "success", bytes: Buffer.from(text) });

/** Another replica's connections, of which the first one makes the tables. */
async function openReplica(url: string): Promise<Database> {
  const database = await openDatabase({
    url,
    dataDir: tmpdir(),
    logger: silentLogger,
    migrations: [idempotencyMigration],
  });
  onTestFinished(() => database.close());
  return database;
}

async function open(url?: string) {
  const database = await openReplica(url ?? (await createTestDatabaseUrl()));
  const store = await openIdempotencyStore(database);
  onTestFinished(() => store.close());
  return { database, store };
}

/** Two replicas on one database. */
async function openTwo() {
  const url = await createTestDatabaseUrl();
  return { url, one: await open(url), other: await open(url) };
}

async function claimed(store: Awaited<ReturnType<typeof open>>["store"], given = request) {
  const result = await store.claim(given);
  return result.kind === "claimed" ? result.claim : expect.fail(`the claim is ${result.kind}`);
}

it("gives a key to one of many who ask for it at the same time", async () => {
  const { one, other } = await openTwo();
  const results = await Promise.all(
    Array.from({ length: 50 }, (_, index) => (index % 2 === 0 ? one : other).store.claim(request)),
  );
  expect(results.filter(({ kind }) => kind === "claimed")).toHaveLength(1);
  expect(results.filter(({ kind }) => kind === "busy")).toHaveLength(49);
});

it("tells every replica how the work ended, byte by byte", async () => {
  const { one, other } = await openTwo();
  const bytes = Uint8Array.from({ length: 1_000 }, (_, index) => index % 256);
  for (const kind of ["success", "failure"] as const) {
    const given = { ...request, key: kind };
    expect(await one.store.complete(await claimed(one.store, given), { kind, bytes }, DAY_MS)).toBe(true);
    const result = await other.store.claim(given);
    expect(result).toMatchObject({ kind: "completed", outcome: { kind } });
    expect(
      result.kind === "completed" && Buffer.compare(result.outcome?.bytes ?? bytes.subarray(1), bytes),
    ).toBe(0);
  }
  const large = { ...request, key: "too large" };
  await one.store.complete(await claimed(one.store, large), undefined, DAY_MS);
  expect(await other.store.claim(large)).toEqual({ kind: "completed", outcome: undefined });
});

it("refuses a key for another request, whatever became of the first", async () => {
  const { store, database } = await open();
  const reused = { ...request, fingerprint: "b" };
  const claim = await claimed(store);
  expect(await store.claim(reused)).toEqual({ kind: "reused" });
  await sql`UPDATE idempotency_requests SET lease_until = now()`.execute(database.kysely);
  expect(await store.claim(reused)).toEqual({ kind: "reused" });
  await store.complete(claim, success(""), DAY_MS);
  expect(await store.claim(reused)).toEqual({ kind: "reused" });
});

it("keys that differ only in what UTF-8 cannot tell are different", async () => {
  const { store } = await open();
  await claimed(store, { ...request, key: "\ud800" });
  await claimed(store, { ...request, key: "\ud801" });
});

it("gives a key whose owner has not renewed it to the next one, and takes nothing from the old owner", async () => {
  const { one, other } = await openTwo();
  const old = await claimed(one.store);
  expect(await one.store.renew(old, 60_000)).toBe(true);
  await sql`UPDATE idempotency_requests SET lease_until = now()`.execute(one.database.kysely);
  const successor = await claimed(other.store);
  expect(BigInt(successor.token)).toBeGreaterThan(BigInt(old.token));
  expect(await one.store.renew(old, 60_000)).toBe(false);
  expect(await one.store.complete(old, success("zombie"), DAY_MS)).toBe(false);
  await one.store.release(old);
  expect(await one.store.claim(request)).toMatchObject({ kind: "busy" });
  expect(await other.store.complete(successor, success("successor"), DAY_MS)).toBe(true);
  expect(await one.store.claim(request)).toMatchObject({ outcome: { bytes: Buffer.from("successor") } });
});

it("takes nothing from an owner whose key was released and claimed anew", async () => {
  const { store } = await open();
  const old = await claimed(store);
  await store.release(old);
  const next = await claimed(store, { ...request, fingerprint: "b" });
  expect(await store.complete(old, success("old"), DAY_MS)).toBe(false);
  expect(await store.complete(next, success("next"), DAY_MS)).toBe(true);
});

it("calls back whoever waits, at every replica, when the work ends or is given up", async () => {
  const { one, other } = await openTwo();
  for (const end of ["complete", "release"] as const) {
    const given = { ...request, key: end };
    const claim = await claimed(one.store, given);
    let calls = 0;
    const unwatch = [one, other].map(({ store }) => store.watch(given.key, () => calls++));
    expect(await other.store.claim(given)).toMatchObject({ kind: "busy" });
    await (end === "complete" ? one.store.complete(claim, success(""), DAY_MS) : one.store.release(claim));
    await expect.poll(() => calls).toBe(2);
    for (const stop of unwatch) {
      stop();
    }
  }
});

it("calls everyone back when notifications may have been missed", async () => {
  const { store, database } = await open();
  let calls = 0;
  store.watch("k", () => calls++);
  await sql`
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'toolplane listener' AND datname = current_database()
  `.execute(database.kysely);
  await expect.poll(() => calls).toBe(1);
});

it("forgets what has expired, in parts, and nothing else", async () => {
  const { store, database } = await open();
  const kept = await claimed(store);
  await store.complete(kept, success("kept"), DAY_MS);
  await sql`
    INSERT INTO idempotency_requests (key, fingerprint, state, lease_until, expires_at)
    SELECT sha256(i::text::bytea), 'a', 'success', now(), now() - interval '1 s' FROM generate_series(1, 1500) AS i
  `.execute(database.kysely);
  expect([await store.forgetExpired(), await store.forgetExpired(), await store.forgetExpired()]).toEqual([
    1_000, 500, 0,
  ]);
  expect(await store.claim(request)).toMatchObject({ kind: "completed" });
});

it("what has expired is as good as forgotten", async () => {
  const { store, database } = await open();
  await store.complete(await claimed(store), success("old"), DAY_MS);
  await sql`UPDATE idempotency_requests SET expires_at = now()`.execute(database.kysely);
  await claimed(store, { ...request, fingerprint: "b" });
});

it("work is done once for calls at two replicas, and all get its outcome", async () => {
  const { one, other } = await openTwo();
  let executions = 0;
  const finish = Promise.withResolvers<void>();
  const replicas = [one, other].map(({ store }) => createIdempotency({ store }));
  const calls = Array.from({ length: 20 }, (_, index) =>
    replicas[index % 2]?.run({ scope: "test", requestId: "1", fingerprint: "a" }, async () => {
      executions++;
      await finish.promise;
      return success("paid");
    }),
  );
  await expect.poll(() => replicas.reduce((sum, replica) => sum + replica.stats().waited, 0)).toBe(19);
  finish.resolve();
  const results = await Promise.all(calls);
  expect(executions).toBe(1);
  expect(
    results.every(
      (result) => Buffer.compare(result?.outcome.bytes ?? Buffer.of(), Buffer.from("paid")) === 0,
    ),
  ).toBe(true);
  expect(results.filter((result) => result?.replayed === false)).toHaveLength(1);
});

it("a repetition takes over from an owner that was killed at work", async () => {
  const url = await createTestDatabaseUrl();
  const { store, database } = await open(url);
  const owner = fork(join(import.meta.dirname, "test-support/owner.ts"), [url, "60000", "1"], {
    execArgv: ["--conditions=toolplane-source"],
  });
  onTestFinished(() => {
    owner.kill("SIGKILL");
  });
  expect(await once(owner, "message")).toEqual(["working", undefined]);
  const idempotency = createIdempotency({ store });
  let executions = 0;
  const repetition = idempotency.run({ scope: "test", requestId: "1", fingerprint: "a" }, async () => {
    executions++;
    return success("paid");
  });
  await expect.poll(() => idempotency.stats().waited).toBe(1);
  expect(executions).toBe(0);
  owner.kill("SIGKILL");
  await once(owner, "exit");
  // A minute later.
  await sql`UPDATE idempotency_requests SET lease_until = lease_until - interval '1 min'`.execute(
    database.kysely,
  );
  expect(await repetition).toMatchObject({ replayed: false });
  expect(executions).toBe(1);
});

it("what a killed process has recorded is there for all", async () => {
  const { one, other, url } = await openTwo();
  const idempotency = createIdempotency({ store: one.store });
  const identity = { scope: "test", requestId: "1", fingerprint: "a" };
  await idempotency.run(identity, async () => success("paid"));
  const restarted = await open(url);
  for (const { store } of [other, restarted]) {
    const { outcome, replayed } = await createIdempotency({ store }).run(identity, () =>
      expect.fail("done twice"),
    );
    expect({ text: Buffer.from(outcome.bytes).toString(), replayed }).toEqual({
      text: "paid",
      replayed: true,
    });
  }
});

it("while the database is down, nothing is done", async () => {
  const { store, database } = await open();
  await database.close();
  const run = createIdempotency({ store }).run({ scope: "test", requestId: "1", fingerprint: "a" }, () =>
    expect.fail("done without knowing"),
  );
  await expect(run).rejects.toMatchObject({ reason: "STORE_UNAVAILABLE" });
});
