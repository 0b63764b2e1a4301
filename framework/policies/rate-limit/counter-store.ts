import { createHash } from "node:crypto";
import { RateLimiterPostgres, RateLimiterRedis, RateLimiterRes } from "rate-limiter-flexible";
import type { SharedWindow } from "./shared-window.ts";

/** What a store says after it has counted a call. */
export interface Count {
  readonly allowed: boolean;
  readonly remaining: number;
  /** Until the window is over, in milliseconds. */
  readonly resetMs: number;
}

/** Counts calls in windows of one size. Rejects when the store cannot be used. */
export interface Counter {
  /** Counts a call of a key. */
  consume(key: string): Promise<Count>;
  /** Takes back that a call was counted. */
  refund(key: string): Promise<void>;
}

/** Where several processes count calls together. */
export interface CounterStore {
  /** @param name tells the keys of one level of limits from those of another. */
  counter(name: string, window: SharedWindow): Counter;
  /** Deletes what is over, if the store does not do that by itself. */
  sweep?(): Promise<void>;
}

/** What is needed of a `pg.Pool`. */
export interface PostgresPool {
  query(query: {
    readonly text: string;
    readonly values?: unknown[];
    readonly name?: string;
  }): Promise<{ readonly rows: Record<string, unknown>[]; readonly rowCount: number | null }>;
}

export interface PostgresCountersOptions {
  readonly pool: PostgresPool;
  /** Made by `counterTableSql`. Letters, digits and `_`. Default: `rate_limits`. */
  readonly table?: string | undefined;
}

const DEFAULT_TABLE = "rate_limits";
/** How long a row is kept after its window is over: more than clocks of two replicas are apart. */
const KEPT_MS = 60_000;
/** How many rows one statement deletes, so that none takes long. */
const DELETE_BATCH = 5_000;
/** How many statements one sweep makes at most. */
const MAX_BATCHES = 20;

/**
 * Makes the table that calls are counted in. It is unlogged: that is faster, and what a crash of the database forgets
 * is less than a period old. Its columns are those that rate-limiter-flexible expects, in this order.
 */
export function counterTableSql(table: string = DEFAULT_TABLE): string[] {
  const name = checkedTable(table);
  return [
    `CREATE UNLOGGED TABLE ${name} (key varchar(255) COLLATE "C" PRIMARY KEY, points integer NOT NULL DEFAULT 0, expire bigint) WITH (fillfactor = 70)`,
    `CREATE INDEX ${name}_expire ON ${name} (expire)`,
  ];
}

/**
 * Counts in a table of PostgreSQL. Windows end by the clocks of the callers, which have to agree: a window is shorter or
 * longer by as much as they are apart.
 */
export function postgresCounters({ pool, table = DEFAULT_TABLE }: PostgresCountersOptions): CounterStore {
  const tableName = checkedTable(table);
  return {
    counter: (name, { points, windowMs }) =>
      counterOf(
        new RateLimiterPostgres({
          storeClient: pool,
          storeType: "pool",
          tableName,
          tableCreated: true,
          clearExpiredByTimeout: false,
          keyPrefix: name,
          points,
          duration: windowMs / 1_000,
        }),
      ),
    async sweep() {
      for (let batch = 0; batch < MAX_BATCHES; batch++) {
        const { rowCount } = await pool.query({
          // Rows that another replica is deleting, or counting in, are passed over.
          text: `DELETE FROM ${tableName} WHERE key = ANY (ARRAY(SELECT key FROM ${tableName} WHERE expire < $1 LIMIT ${DELETE_BATCH} FOR UPDATE SKIP LOCKED))`,
          values: [Date.now() - KEPT_MS],
        });
        if ((rowCount ?? 0) < DELETE_BATCH) {
          return;
        }
      }
    },
  };
}

/** What is needed of an ioredis client, which also speaks to Valkey. */
export interface RedisClient {
  readonly status: string;
  defineCommand(name: string, definition: { numberOfKeys?: number; lua: string }): void;
}

export interface RedisCountersOptions {
  readonly client: RedisClient;
  /** Begins every key. Default: `toolplane:limit`. */
  readonly prefix?: string | undefined;
}

/**
 * As the script of rate-limiter-flexible, but with windows in milliseconds: the library counts in whole seconds, which
 * would make of 1,000 a minute with a burst of 20 either 1,200 or 600.
 */
const countScript = `
redis.call("SET", KEYS[1], 0, "PX", ARGV[2], "NX")
local consumed = redis.call("INCRBY", KEYS[1], ARGV[1])
if redis.call("PTTL", KEYS[1]) < 0 then
  redis.call("PEXPIRE", KEYS[1], ARGV[2])
end
return { consumed, redis.call("PTTL", KEYS[1]) }`;
const COMMAND = "toolplaneCount";

/** Counts in Redis or Valkey, by their clock. Keys expire with their windows. */
export function redisCounters({ client, prefix = "toolplane:limit" }: RedisCountersOptions): CounterStore {
  // The library defines a command under a name of its own; on a client that others use it too, one would get the
  // script of the other.
  const storeClient = {
    get status() {
      return client.status;
    },
    defineCommand: (_name: string, definition: { numberOfKeys?: number; lua: string }) =>
      client.defineCommand(COMMAND, definition),
    rlflxIncr: (args: unknown[]) =>
      // ioredis adds defined commands as methods.
      (client as unknown as Record<typeof COMMAND, (args: unknown[]) => Promise<unknown>>)[COMMAND](args),
  };
  return {
    counter: (name, { points, windowMs }) =>
      counterOf(
        new RateLimiterRedis({
          storeClient,
          keyPrefix: `${prefix}:${name}`,
          points,
          // What the library takes for seconds, the script takes for milliseconds.
          duration: windowMs,
          customIncrTtlLuaScript: countScript,
          // Without it, ioredis would keep calls for when the connection comes back.
          rejectIfRedisNotReady: true,
        }),
      ),
  };
}

function counterOf(limiter: RateLimiterPostgres | RateLimiterRedis): Counter {
  return {
    consume: (key) =>
      limiter.consume(storeKey(key)).then(
        (counted) => countOf(counted, true),
        (reason: unknown) => {
          // A refusal comes as a rejection with the count.
          if (reason instanceof RateLimiterRes) {
            return countOf(reason, false);
          }
          throw reason;
        },
      ),
    async refund(key) {
      await limiter.reward(storeKey(key));
    },
  };
}

function countOf({ remainingPoints, msBeforeNext }: RateLimiterRes, allowed: boolean): Count {
  return { allowed, remaining: remainingPoints, resetMs: Math.max(1, msBeforeNext) };
}

/**
 * Keys may hold what callers send. What does not fit into a column of text would fail, and so would look as if the
 * store were down.
 */
function storeKey(key: string): string {
  return /^[\x20-\x7e]{1,150}$/.test(key) ? key : `#${createHash("sha256").update(key).digest("base64url")}`;
}

function checkedTable(table: string): string {
  if (!/^[a-z_][a-z0-9_]{0,50}$/.test(table)) {
    throw new RangeError(`"${table}" is no name of a table: use lower-case letters, digits and _`);
  }
  return table;
}
