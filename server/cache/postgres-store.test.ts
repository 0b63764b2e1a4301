import { type ChildProcess, fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  createResponseCache,
  type ResponseCache,
  type ResponseCacheOptions,
} from "@toolplane/framework/policies";
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import { type Database, openDatabase } from "../storage/database.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { createTestDatabaseUrl } from "../storage/testing.ts";
import { openPostgresCacheStore, type PostgresCacheStoreOptions } from "./postgres-store.ts";
import { digestOf } from "./purge-notice.ts";
import { loadSigningKeys } from "./signing-key.ts";

const secrets = [randomBytes(32)];
const logger = silentLogger;

/** A replica: a cache with a database connection of its own. */
async function openReplica(
  url: string,
  options: Partial<ResponseCacheOptions> = {},
  storeOptions: Partial<PostgresCacheStoreOptions> = {},
) {
  const database = await openDatabase({ url, dataDir: tmpdir(), logger });
  const store = await openPostgresCacheStore({ database, logger, ...storeOptions });
  const cache = createResponseCache({
    name: "tools",
    // What is tested is not how fast a busy machine is.
    durable: { store, secrets, readTimeoutMs: 10_000 },
    earlyRefresh: 0,
    ...options,
  });
  onTestFinished(async () => {
    await cache.close();
    await store.close();
    await database.close();
  });
  return { database, store, cache };
}

async function ask(
  cache: ResponseCache,
  key: string,
  text: string,
  tags: readonly string[] = [`tool/${key}`],
) {
  const { state, source, value } = await cache.getOrLoad(key, async () => ({ value: Buffer.from(text) }), {
    tags,
  });
  return `${state} ${source} ${Buffer.from(value)}`;
}

async function keep(cache: ResponseCache, keys: readonly string[], text = "old"): Promise<void> {
  for (const key of keys) {
    await ask(cache, key, text);
  }
  await cache.flush();
}

async function countRows(database: Database): Promise<number> {
  const rows = await database.kysely.selectFrom("response_cache").select("cache").execute();
  return rows.length;
}

test("an answer is found by another replica, and after a restart", async () => {
  const url = await createTestDatabaseUrl();
  const first = await openReplica(url);
  const load = async () => ({ value: Uint8Array.of(0, 255, 1), tokens: 12, costUsd: 0.125 });
  await first.cache.getOrLoad("k", load, { tags: ["odd \0 tag \ud800", "tool/k"] });
  await first.cache.close();

  const second = await openReplica(url);
  const answer = await second.cache.getOrLoad("k", load);
  expect(answer).toMatchObject({ state: "hit", source: "durable", tokens: 12, costUsd: 0.125 });
  expect([...answer.value]).toEqual([0, 255, 1]);
  expect(await second.cache.purge({ kind: "tag", tag: "odd \0 tag \ud800" })).toBe(2);
});

test("a later answer replaces the earlier one, and caches do not mix", async () => {
  const url = await createTestDatabaseUrl();
  const one = await openReplica(url, { ttlMs: 60_000 });
  const other = await openReplica(url, { name: "agents" });
  await keep(one.cache, ["k"], "first");
  await one.store.write([
    {
      cache: "tools",
      key: "k",
      sealed: Buffer.from("x"),
      tags: [],
      keepUntil: Date.now() + 1e6,
      position: one.store.position(),
    },
  ]);
  expect(await countRows(one.database)).toBe(1);
  expect(await ask(other.cache, "k", "theirs")).toBe("miss load theirs");
});

const set = (index: number) => sql`set_byte(sealed, ${index}, get_byte(sealed, ${index}) # 1)`;

test("whatever is done to a row in SQL, nothing is given but what was signed for it", async () => {
  const url = await createTestDatabaseUrl();
  const writer = await openReplica(url);
  const reader = await openReplica(url);
  const { kysely } = writer.database;
  const agents = await openReplica(url, { name: "agents" });
  await keep(agents.cache, ["theirs"]);
  const tampering: Record<string, ReturnType<typeof sql>> = {
    code: set(20),
    "time of loading": set(42),
    "time to live": set(50),
    tokens: set(65),
    tags: set(90),
    value: sql`set_byte(sealed, octet_length(sealed) - 1, 0)`,
    longer: sql`sealed || decode('00', 'hex')`,
    shorter: sql`substring(sealed FROM 1 FOR octet_length(sealed) - 1)`,
    short: sql`substring(sealed FROM 1 FOR 10)`,
    empty: sql`''::bytea`,
    "made up": sql`substring(sealed FROM 1 FOR 8) || sha256('x') || sha256('y') || sha256('z')`,
    "of another key": sql`(SELECT sealed FROM response_cache WHERE key_digest = ${digestOf("intact")})`,
    "of another cache": sql`(SELECT sealed FROM response_cache WHERE cache = 'agents')`,
  };
  await keep(writer.cache, ["intact", ...Object.keys(tampering)]);
  for (const [key, sealed] of Object.entries(tampering)) {
    await sql`UPDATE response_cache SET sealed = ${sealed} WHERE cache = 'tools' AND key_digest = ${digestOf(key)}`.execute(
      kysely,
    );
  }
  for (const key of Object.keys(tampering)) {
    expect([key, await ask(reader.cache, key, "new")]).toEqual([key, "miss load new"]);
  }
  expect(await ask(reader.cache, "intact", "new")).toBe("hit durable old");
  expect(reader.cache.stats().durable).toMatchObject({
    tampered: Object.keys(tampering).length,
    unknownKey: 0,
  });
  // What was loaded in their place is kept.
  await reader.cache.flush();
  const third = await openReplica(url);
  for (const key of Object.keys(tampering)) {
    expect([key, await ask(third.cache, key, "newer")]).toEqual([key, "hit durable new"]);
  }
});

test("a tampered row is deleted even when there is nothing to put in its place", async () => {
  const url = await createTestDatabaseUrl();
  const writer = await openReplica(url);
  await keep(writer.cache, ["k"]);
  await sql`UPDATE response_cache SET sealed = ${set(20)}`.execute(writer.database.kysely);
  const reader = await openReplica(url);
  expect(await reader.cache.lastGood("k")).toBeUndefined();
  await expect.poll(() => countRows(reader.database)).toBe(0);
});

test("a longer life in the row is none in what was signed", async () => {
  const url = await createTestDatabaseUrl();
  const clock = createFakeClock(Date.now());
  const writer = await openReplica(url, { ttlMs: 60_000, maxStaleMs: 0 });
  const reader = await openReplica(url, { ttlMs: 60_000, maxStaleMs: 0, clock });
  await keep(writer.cache, ["k"]);
  await sql`UPDATE response_cache SET keep_until = now() + interval '1 year'`.execute(writer.database.kysely);
  clock.advance(120_000);
  expect(await ask(reader.cache, "k", "new")).toBe("miss load new");
});

test("a purge empties the memory of other replicas, by key, by tag and altogether", async () => {
  const url = await createTestDatabaseUrl();
  const one = await openReplica(url);
  const other = await openReplica(url);
  const keys = ["a", "b", "c"];
  const inMemory = async () => {
    const answers = await Promise.all(
      keys.map((key) => other.cache.getOrLoad(key, async () => ({ value: Buffer.from("new"), ttlMs: 0 }))),
    );
    return answers.map(({ value }) => Buffer.from(value).toString());
  };
  await keep(one.cache, keys);
  expect(await inMemory()).toEqual(["old", "old", "old"]);
  expect(await one.cache.purge({ kind: "key", key: "a" })).toBe(2);
  await expect.poll(inMemory).toEqual(["new", "old", "old"]);
  expect(await one.cache.purge({ kind: "tag", tag: "tool/b" })).toBe(2);
  await expect.poll(inMemory).toEqual(["new", "new", "old"]);
  expect(await other.cache.purge()).toBe(2);
  await expect.poll(inMemory).toEqual(["new", "new", "new"]);
  expect(await countRows(one.database)).toBe(0);
});

test("a key too long to be announced is purged all the same", async () => {
  const url = await createTestDatabaseUrl();
  const one = await openReplica(url);
  const other = await openReplica(url);
  const key = "long".repeat(5_000);
  await keep(one.cache, [key]);
  expect(await ask(other.cache, key, "new", [])).toBe("hit durable old");
  await one.cache.purge({ kind: "key", key });
  await expect.poll(() => other.cache.stats().entries).toBe(0);
  expect(await ask(other.cache, key, "new", [])).toBe("miss load new");
});

test("what was asked for before a purge and is written after it is never read", async () => {
  const url = await createTestDatabaseUrl();
  const one = await openReplica(url);
  const other = await openReplica(url);
  const before = one.store.position();
  await keep(one.cache, ["late"]);
  const { rows } = await sql<{ sealed: Buffer }>`SELECT sealed FROM response_cache`.execute(
    one.database.kysely,
  );
  const late = {
    cache: "tools",
    key: "late",
    tags: ["tool/late"],
    keepUntil: Date.now() + 60_000,
    position: before,
  };
  await other.cache.purge({ kind: "tag", tag: "tool/late" });
  await one.store.write([{ ...late, sealed: rows[0]?.sealed ?? Buffer.alloc(0) }]);
  expect(await ask(other.cache, "late", "new")).toBe("miss load new");
  await other.cache.flush();
  // Nor does it replace what came after the purge.
  await one.store.write([{ ...late, sealed: Buffer.from("old") }]);
  const third = await openReplica(url);
  expect(await ask(third.cache, "late", "newer")).toBe("hit durable new");
});

test("purges at the same time are seen in their order", async () => {
  const url = await createTestDatabaseUrl();
  const replicas = [await openReplica(url), await openReplica(url)];
  const numbers = Array.from({ length: 20 }, (_, index) => index);
  await Promise.all(
    numbers.map((number) =>
      replicas[number % 2]?.store.purge("tools", { kind: "tag", tag: `tag/${number}` }),
    ),
  );
  for (const { store } of replicas) {
    await expect.poll(() => store.position()).toBe(20);
  }
  const { store } = await openReplica(url);
  expect(store.position()).toBe(20);
});

test("a replica that was cut off forgets what it holds in memory, since it may have missed purges", async () => {
  const url = await createTestDatabaseUrl();
  const one = await openReplica(url);
  const other = await openReplica(url);
  await keep(one.cache, ["k"]);
  await ask(other.cache, "k", "-");
  await sql`
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'toolplane listener'
  `.execute(one.database.kysely);
  await expect.poll(() => other.cache.stats().entries).toBe(0);
  expect(await ask(other.cache, "k", "new")).toBe("hit durable old");
});

test("a table that is locked holds up no call for long, and is used again when it is free", async () => {
  const url = await createTestDatabaseUrl();
  const locker = await openReplica(url);
  const one = await openReplica(url, { durable: { store: locker.store, secrets, readTimeoutMs: 50 } });
  await keep(locker.cache, ["k"]);
  const { promise: held, resolve: release } = Promise.withResolvers<void>();
  const locked = Promise.withResolvers<void>();
  const transaction = locker.database.kysely.transaction().execute(async (tx) => {
    await sql`LOCK TABLE response_cache IN ACCESS EXCLUSIVE MODE`.execute(tx);
    locked.resolve();
    await held;
  });
  await locked.promise;
  for (let index = 0; index < 5; index++) {
    expect(await ask(one.cache, `${index}`, "new")).toBe("miss load new");
  }
  expect(one.cache.stats().durable).toMatchObject({ reads: 3, readFailures: 3, readsSkipped: 2 });
  release();
  await transaction;
  await one.cache.flush();
  await expect.poll(() => countRows(locker.database)).toBe(6);
});

test("without a database calls go on in memory", async () => {
  const url = await createTestDatabaseUrl();
  const one = await openReplica(url);
  await keep(one.cache, ["a"]);
  await one.database.close();
  expect(await ask(one.cache, "a", "new")).toBe("hit memory old");
  expect(await ask(one.cache, "b", "new")).toBe("miss load new");
  expect(await ask(one.cache, "b", "newer")).toBe("hit memory new");
  await expect(one.cache.purge()).rejects.toThrow();
  expect(one.cache.stats().entries).toBe(0);
});

test("sweeping deletes what is expired, and then what would expire first until the rest fits", async () => {
  const url = await createTestDatabaseUrl();
  const { database, store } = await openReplica(url, {}, { maxRows: 2_500, maxBytes: 120_000 });
  const entries = (count: number, bytes: number, endsInMs: number, prefix: string) =>
    store.write(
      Array.from({ length: count }, (_, index) => ({
        cache: "tools",
        key: `${prefix}${index}`,
        sealed: Buffer.alloc(bytes, 1),
        tags: [],
        keepUntil: Date.now() + endsInMs + index,
        position: 0,
      })),
    );
  await entries(1_500, 10, -10_000, "expired");
  await entries(3_000, 10, 1_000_000, "many");
  await store.sweep();
  expect(await countRows(database)).toBe(2_500);
  await entries(10, 20_000, 2_000_000, "large");
  await store.sweep();
  // Six of them are all that fits, and those that ended first had to go before.
  expect(await countRows(database)).toBe(6);
  const { rows } = await sql<{ first: boolean }>`
    SELECT key_digest = ${digestOf("large4")} AS first FROM response_cache ORDER BY keep_until LIMIT 1
  `.execute(database.kysely);
  expect(rows).toEqual([{ first: true }]);
});

test("sweeping happens by itself", async () => {
  const url = await createTestDatabaseUrl();
  const clock = createFakeClock();
  const { database, store } = await openReplica(url, {}, { clock });
  await store.write([
    { cache: "tools", key: "k", sealed: Buffer.from("x"), tags: [], keepUntil: 0, position: 0 },
  ]);
  clock.advance(60_000);
  await expect.poll(() => countRows(database)).toBe(0);
  await expect.poll(() => clock.pending).toBe(1);
});

test("purges are forgotten when nothing is left that they hide", async () => {
  const url = await createTestDatabaseUrl();
  const { database, store } = await openReplica(url);
  const { kysely } = database;
  for (const scope of [{ kind: "all" }, { kind: "tag", tag: "t" }, { kind: "key", key: "k" }] as const) {
    await store.purge("tools", scope);
  }
  const entry = { cache: "tools", sealed: Buffer.from("x"), keepUntil: Date.now() + 1e9 };
  await store.write([
    { ...entry, key: "hidden", tags: [], position: 0 },
    { ...entry, key: "tagged", tags: ["t"], position: 1 },
    { ...entry, key: "k", tags: [], position: 2 },
    { ...entry, key: "visible", tags: ["t"], position: 3 },
  ]);
  await store.sweep();
  expect(await countRows(database)).toBe(4);
  await sql`UPDATE response_cache_purges SET time = now() - interval '2 days'`.execute(kysely);
  await store.sweep();
  expect(await kysely.selectFrom("response_cache").select("position").execute()).toEqual([{ position: "3" }]);
  expect(await kysely.selectFrom("response_cache_purges").selectAll().execute()).toEqual([]);
});

/** The next message of a process. */
async function told(child: ChildProcess, message?: unknown): Promise<unknown> {
  const answer = once(child, "message");
  if (message !== undefined) {
    child.send(message as [string, string]);
  }
  return (await answer)[0];
}

test("two processes share answers, the key and purges; killing one loses nothing that was written", async () => {
  const url = await createTestDatabaseUrl();
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  onTestFinished(() => rm(dataDir, { recursive: true }));
  const start = async () => {
    const child = fork(join(import.meta.dirname, "test-support/cache-process.ts"), [url, dataDir], {
      execArgv: ["--conditions=toolplane-source"],
    });
    onTestFinished(async () => {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGKILL");
        await once(child, "exit");
      }
    });
    expect(await told(child)).toBe("ready");
    return child;
  };
  const [first, second] = await Promise.all([start(), start()]);
  expect(await told(first, ["a", "from the first"])).toEqual(["miss", "load", "from the first"]);
  first.kill("SIGKILL");
  await once(first, "exit");
  expect(await told(second, ["a", "-"])).toEqual(["hit", "durable", "from the first"]);

  const here = await openReplica(url, {
    durable: {
      store: (await openReplica(url)).store,
      secrets: await loadSigningKeys({ source: undefined, dataDir, env: {}, logger }),
      readTimeoutMs: 10_000,
    },
  });
  expect(await ask(here.cache, "a", "-")).toBe("hit durable from the first");
  await here.cache.purge({ kind: "tag", tag: "tool/a" });
  await expect.poll(() => told(second, ["a", "after the purge"])).not.toContain("from the first");
  expect(await told(second, ["a", "-"])).toEqual(["hit", "memory", "after the purge"]);
});
