// Tells its parent how many bytes a million keys take, while they are in use and when they are as good as new.
import { RateLimiterMemory } from "rate-limiter-flexible";
import { createRateLimiter } from "../framework/policies/rate-limit/rate-limiter.ts";

export interface MemoryReport {
  readonly inUse: number;
  readonly afterwards: number;
  readonly keysAfterwards: number;
}

const KEYS = 1_000_000;

if (process.send !== undefined) {
  process.send(process.argv[2] === "ours" ? measureOurs() : await measurePeer());
  process.once("disconnect", () => process.exit());
}

function measureOurs(): MemoryReport {
  // Time that is moved by hand: an hour passes at once.
  let now = 0;
  const timers: (() => void)[] = [];
  const clock = {
    now: () => now,
    monotonic: () => now,
    after: (_ms: number, callback: () => void) => {
      timers.push(callback);
      return () => {};
    },
  };
  const before = bytesInUse();
  const limiter = createRateLimiter({ limit: 200, periodMs: 60_000, clock });
  for (let key = 0; key < KEYS; key++) {
    limiter.take(`user:${key}`);
  }
  const inUse = bytesInUse() - before;
  now += 3_600_000;
  for (let timer = timers.pop(); timer !== undefined; timer = timers.pop()) {
    timer();
  }
  return { inUse, afterwards: bytesInUse() - before, keysAfterwards: limiter.stats().keys };
}

async function measurePeer(): Promise<MemoryReport> {
  const before = bytesInUse();
  const limiter = new RateLimiterMemory({ points: 200, duration: 60 });
  for (let key = 0; key < KEYS; key++) {
    await limiter.consume(`user:${key}`);
  }
  return { inUse: bytesInUse() - before, afterwards: Number.NaN, keysAfterwards: Number.NaN };
}

function bytesInUse(): number {
  // What was freed by the first is let go by the second.
  globalThis.gc?.();
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
