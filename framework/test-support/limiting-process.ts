// A process for tests that limits calls together with others: the store to count in is in its arguments. It tells its
// parent when it is "ready", then takes orders over IPC.
import { Redis } from "ioredis";
import pg from "pg";
import { type CounterStore, postgresCounters, redisCounters } from "../policies/rate-limit/counter-store.ts";
import { createRateLimiter } from "../policies/rate-limit/rate-limiter.ts";
import { createSharedLimitSet } from "../policies/rate-limit/shared-limit-set.ts";

/** What a process can be told: to make calls in the name of each key, some at once; or to say how the store is. */
export type Order =
  | {
      readonly kind: "call";
      readonly keys: readonly string[];
      readonly callsPerKey: number;
      readonly atOnce: number;
    }
  | { readonly kind: "store" };

export interface CallReport {
  /** By key, how many calls were let through. */
  readonly allowed: Readonly<Record<string, number>>;
  readonly answered: number;
  readonly failed: readonly string[];
}

/** The limits that each process has. */
export const processLimits = {
  all: { limit: 1_000_000, periodMs: 3_600_000, burst: 100_000 },
  /** Windows of 12 minutes: a test sees one of them. */
  caller: { limit: 100, periodMs: 3_600_000, burst: 20 },
};

if (process.send !== undefined && process.argv[1] === import.meta.filename) {
  const [kind = "", url = ""] = process.argv.slice(2);
  const limits = createSharedLimitSet<string>({
    store: await openStore(kind, url),
    levels: [
      { name: "all", limiter: createRateLimiter(processLimits.all), keyOf: () => "all" },
      { name: "caller", limiter: createRateLimiter(processLimits.caller), keyOf: (key) => key },
    ],
    // Other processes keep the machine busy: a store that is slow is not lost.
    deadlineMs: 5_000,
    minRetryMs: 50,
    maxRetryMs: 200,
  });

  async function call(order: Extract<Order, { kind: "call" }>): Promise<CallReport> {
    const allowed: Record<string, number> = {};
    const failed: string[] = [];
    let answered = 0;
    const calls = Array.from({ length: order.callsPerKey }, () => order.keys).flat();
    const worker = async () => {
      for (let key = calls.pop(); key !== undefined; key = calls.pop()) {
        try {
          const decision = await limits.take(key);
          answered++;
          allowed[key] = (allowed[key] ?? 0) + (decision?.allowed === true ? 1 : 0);
        } catch (error) {
          failed.push(String(error));
        }
        process.send?.({ progress: answered });
      }
    };
    await Promise.all(Array.from({ length: order.atOnce }, worker));
    return { allowed, answered, failed };
  }

  process.on("message", async (order: Order) => {
    process.send?.({ report: order.kind === "call" ? await call(order) : limits.stats().store });
  });
  process.once("disconnect", () => process.exit());
  process.send("ready");
}

async function openStore(kind: string, url: string): Promise<CounterStore> {
  if (kind === "postgres") {
    const pool = new pg.Pool({ connectionString: url, max: 5 });
    pool.on("error", () => {}); // an idle connection of a store that is killed
    return postgresCounters({ pool });
  }
  const client = new Redis(url, { retryStrategy: () => 50 });
  client.on("error", () => {}); // tried again until it works
  await client.ping();
  return redisCounters({ client });
}
