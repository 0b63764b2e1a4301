import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { type PrivatePostgres, startPrivatePostgres } from "../../../server/storage/private-postgres.ts";
import { silentLogger } from "../../../server/storage/silent-logger.ts";
import { createTestDatabaseUrl, databaseUrl } from "../../../server/storage/testing.ts";
import { systemClock } from "../../clock.ts";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { shareLimitsThroughOutage } from "../../test-support/shared-limit-scenario.ts";
import { counterTableSql, postgresCounters } from "./counter-store.ts";
import { createRateLimiter } from "./rate-limiter.ts";
import { createSharedLimitSet } from "./shared-limit-set.ts";
import { sharedWindow } from "./shared-window.ts";
import type { StoreEvent } from "./store-health.ts";

interface Call {
  readonly service: string;
  readonly caller: string;
}

const hour = 3_600_000;

async function openPool(url: string): Promise<pg.Pool> {
  const pool = new pg.Pool({ connectionString: url });
  pool.on("error", () => {}); // the server stops before some connections do
  onTestFinished(() => pool.end());
  return pool;
}

async function openCounters() {
  const pool = await openPool(await createTestDatabaseUrl());
  for (const statement of counterTableSql()) {
    await pool.query(statement);
  }
  const rows = async () => {
    const { rows } = await pool.query("SELECT key, points FROM rate_limits WHERE points <> 0 ORDER BY key");
    return Object.fromEntries(rows.map(({ key, points }) => [key, points]));
  };
  return { pool, rows };
}

/** A replica, as it were: it shares nothing with others but the store. */
function createReplica(pool: pg.Pool, options: { readonly deadlineMs?: number } = {}) {
  const events: StoreEvent[] = [];
  const clock = createFakeClock();
  const limits = createSharedLimitSet<Call>({
    store: postgresCounters({ pool }),
    levels: [
      {
        name: "service",
        limiter: createRateLimiter({
          limit: 12,
          periodMs: hour,
          burst: 3,
          overrides: [["big", { limit: 100, periodMs: hour, burst: 100 }]],
          clock,
        }),
        keyOf: ({ service }) => service,
      },
      {
        name: "caller",
        limiter: createRateLimiter({ limit: 8, periodMs: hour, burst: 2, clock }),
        keyOf: ({ caller }) => caller,
      },
    ],
    onEvent: (event) => events.push(event),
    clock,
    ...options,
  });
  onTestFinished(() => limits.close());
  return { limits, events, clock };
}

test("replicas share one limit, and a refusal spends nothing at the other levels in the end", async () => {
  const { pool, rows } = await openCounters();
  const [one, two] = [createReplica(pool), createReplica(pool)];
  expect(await one.limits.take({ service: "s", caller: "a" })).toMatchObject({ allowed: true, remaining: 1 });
  expect(await two.limits.take({ service: "s", caller: "a" })).toMatchObject({
    allowed: true,
    level: "caller",
    remaining: 0,
  });
  expect(await two.limits.take({ service: "s", caller: "b" })).toMatchObject({
    allowed: true,
    level: "service",
    remaining: 0,
  });
  expect(await one.limits.take({ service: "s", caller: "c" })).toMatchObject({
    allowed: false,
    level: "service",
    key: "s",
    limit: { limit: 12, burst: 3 },
  });
  await expect.poll(rows).toEqual({ "service:s": 4, "caller:a": 2, "caller:b": 1 });
  expect(one.limits.snapshot(5)).toMatchObject([
    { name: "service", allowed: 1, refused: 1 },
    {
      name: "caller",
      allowed: 1,
      refused: 0,
      top: [
        { key: "a", remaining: 1 },
        { key: "c", remaining: 2 },
      ],
    },
  ]);
  // c has spent nothing: both of its calls are left where the service has room.
  expect(await one.limits.take({ service: "big", caller: "c" })).toMatchObject({ allowed: true });
  expect(await two.limits.take({ service: "big", caller: "c" })).toMatchObject({ allowed: true });
});

test("over many windows, replicas together let through no more than windows have room for", async () => {
  const { pool } = await openCounters();
  const limit = { limit: 50, periodMs: 1_000, burst: 5 };
  const { points, windowMs } = sharedWindow(limit);
  const replicas = Array.from({ length: 3 }, () =>
    createSharedLimitSet<string>({
      store: postgresCounters({ pool }),
      levels: [{ name: "caller", limiter: createRateLimiter(limit), keyOf: (caller) => caller }],
      deadlineMs: 10_000,
    }),
  );
  const began = performance.now();
  let allowed = 0;
  await Promise.all(
    replicas.map(async (replica) => {
      while (performance.now() - began < 8 * windowMs) {
        allowed += (await replica.take("a"))?.allowed === true ? 1 : 0;
        await setImmediate();
      }
    }),
  );
  const elapsed = performance.now() - began;
  expect(replicas.map((replica) => replica.stats().store)).toEqual(["up", "up", "up"]);
  for (const replica of replicas) {
    replica.close();
  }
  expect(allowed).toBeGreaterThan(points);
  expect(allowed).toBeLessThanOrEqual(points * (Math.ceil(elapsed / windowMs) + 1));
});

test("what the store has refused is refused without asking again until the window is over", async () => {
  const { pool, rows } = await openCounters();
  const [one, two] = [createReplica(pool), createReplica(pool)];
  await one.limits.take({ service: "s", caller: "a" });
  await one.limits.take({ service: "s", caller: "a" });
  const refused = await two.limits.take({ service: "s", caller: "a" });
  expect(refused).toMatchObject({ allowed: false, level: "caller", key: "a" });
  expect(refused?.retryAfterMs).toBeGreaterThan(hour / 8);
  expect(two.limits.take({ service: "s", caller: "a" })).toMatchObject({ allowed: false, level: "caller" });
  expect(two.limits.stats()).toMatchObject({ shared: 1, remembered: 1 });
  expect(await rows()).toMatchObject({ "caller:a": 3 });
  two.clock.advance(refused?.retryAfterMs ?? 0);
  expect(two.limits.take({ service: "s", caller: "a" })).toBeInstanceOf(Promise);
});

test("what a replica can refuse by itself does not reach the store", async () => {
  const { pool, rows } = await openCounters();
  const { limits } = createReplica(pool);
  await limits.take({ service: "s", caller: "a" });
  await limits.take({ service: "s", caller: "a" });
  expect(limits.take({ service: "s", caller: "a" })).toMatchObject({ allowed: false, level: "caller" });
  expect(await rows()).toEqual({ "service:s": 2, "caller:a": 2 });
});

test("a store that does not answer in time is left alone, until a try in the background succeeds", async () => {
  const { pool } = await openCounters();
  const { limits, events, clock } = createReplica(pool);
  await limits.take({ service: "s", caller: "a" });
  const session = await pool.connect();
  await session.query("BEGIN");
  await session.query("LOCK TABLE rate_limits IN ACCESS EXCLUSIVE MODE");
  const waiting = [
    limits.take({ service: "s", caller: "b" }),
    limits.take({ service: "s", caller: "c" }),
  ] as const;
  clock.advance(250);
  expect(await Promise.all(waiting)).toMatchObject([{ allowed: true }, { allowed: true }]);
  expect(events).toMatchObject([{ kind: "store_lost", cause: { message: "no answer within 250 ms" } }]);
  // Nobody waits now, and the limits of this process hold.
  expect(limits.take({ service: "s", caller: "d" })).toMatchObject({ allowed: false, level: "service" });
  expect(limits.take({ service: "t", caller: "d" })).toMatchObject({ allowed: true });
  expect(limits.stats()).toMatchObject({ store: "lost", shared: 1, alone: 3 });

  // The first try fails like the calls, the next one comes a second later.
  clock.advance(500);
  clock.advance(250);
  await expect.poll(() => clock.pending).toBe(4);
  await session.query("COMMIT");
  session.release();
  clock.advance(999);
  expect(limits.stats().store).toBe("lost");
  clock.advance(1);
  await expect.poll(() => limits.stats().store).toBe("up");
  expect(events[1]).toEqual({ kind: "store_back", lostMs: 1_750 });
  expect(await limits.take({ service: "big", caller: "e" })).toMatchObject({ allowed: true });
});

test("a store that fails is lost at once, and whoever waits for it is let go", async () => {
  const { pool } = await openCounters();
  const { limits, events } = createReplica(pool);
  await pool.query("ALTER TABLE rate_limits RENAME TO elsewhere");
  expect(await limits.take({ service: "s", caller: "a" })).toMatchObject({ allowed: true });
  expect(events).toMatchObject([{ kind: "store_lost", cause: { code: "42P01" } }]);
});

test("keys may hold whatever callers send", async () => {
  const { pool, rows } = await openCounters();
  const { limits } = createReplica(pool);
  for (const caller of ["x".repeat(10_000), "nul\0", "\ud800", "ada lovelace", "ädä"]) {
    expect(await limits.take({ service: "big", caller })).toMatchObject({ allowed: true });
  }
  expect(limits.stats()).toMatchObject({ store: "up", shared: 5 });
  expect(Object.keys(await rows())).toHaveLength(6);
});

test("windows that are over are deleted, those that last are kept", async () => {
  const { pool } = await openCounters();
  const { limits, clock } = createReplica(pool);
  await limits.take({ service: "s", caller: "a" });
  await pool.query(
    "INSERT INTO rate_limits SELECT 'old:' || n, 1, $1::bigint FROM generate_series(1, 12000) AS n",
    [Date.now() - 120_000],
  );
  clock.advance(60_000);
  await expect
    .poll(async () => (await pool.query("SELECT key FROM rate_limits ORDER BY key")).rows)
    .toEqual([{ key: "caller:a" }, { key: "service:s" }]);
});

test("a closed set leaves no timer", async () => {
  const { pool } = await openCounters();
  const { limits, clock } = createReplica(pool);
  await limits.take({ service: "s", caller: "a" });
  limits.close();
  expect(clock.pending).toBe(0);
});

test("a table has to have a name that needs no quotes", () => {
  expect(() => counterTableSql('x"; DROP TABLE y')).toThrow("is no name of a table");
});

test("two processes share one limit in PostgreSQL, each limits by itself while it is down, and they share again", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-limits-"));
  const start = () => startPrivatePostgres({ dataDir, logger: silentLogger, clock: systemClock });
  let postgres: PrivatePostgres = await start();
  onTestFinished(async () => {
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  const url = databaseUrl(postgres.address, postgres.address.database);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  for (const statement of counterTableSql()) {
    await client.query(statement);
  }
  await client.end();
  await shareLimitsThroughOutage({
    kind: "postgres",
    url,
    kill: () => postgres.stop(),
    async start() {
      postgres = await start();
    },
  });
});
