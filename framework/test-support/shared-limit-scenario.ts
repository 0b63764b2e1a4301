import { expect } from "vitest";
import { type CallReport, processLimits } from "./limiting-process.ts";
import { startLimitingProcess } from "./limiting-processes.ts";

/** A store that can be killed and started again at the same place. */
export interface KillableStore {
  readonly kind: "postgres" | "redis";
  readonly url: string;
  kill(): Promise<void>;
  start(): Promise<void>;
}

/**
 * Two processes share one limit; the store is killed while both call, and comes back. Never is more let through than is
 * promised, and every call is answered.
 */
export async function shareLimitsThroughOutage(store: KillableStore): Promise<void> {
  const { burst } = processLimits.caller;
  const processes = [
    await startLimitingProcess(store.kind, store.url),
    await startLimitingProcess(store.kind, store.url),
  ];
  const everyone = (keys: readonly string[], onProgress?: (answered: number) => void) =>
    Promise.all(processes.map((each) => each.call({ keys, callsPerKey: burst * 2, atOnce: 10 }, onProgress)));
  const storesAre = (state: string) =>
    expect.poll(() => Promise.all(processes.map((each) => each.store()))).toEqual([state, state]);

  await storesAre("up");
  const before = await everyone(["before"]);
  expect(answers(before)).toEqual({ answered: burst * 4, failed: [] });
  expect(allowed(before, "before")).toBe(burst);

  const keys = Array.from({ length: 50 }, (_, index) => `during-${index}`);
  let killed: Promise<void> | undefined;
  const during = await everyone(keys, (answered) => {
    if (answered > 100) {
      killed ??= store.kill();
    }
  });
  await killed;
  await storesAre("lost");
  expect(answers(during)).toEqual({ answered: burst * 4 * keys.length, failed: [] });
  for (const key of keys) {
    // Both by themselves, at most.
    expect(allowed(during, key)).toBeGreaterThanOrEqual(burst);
    expect(allowed(during, key)).toBeLessThanOrEqual(burst * 2);
  }
  // What each has let through before counts on.
  const alone = await everyone(["before"]);
  expect(answers(alone)).toEqual({ answered: burst * 4, failed: [] });
  expect(allowed(before, "before") + allowed(alone, "before")).toBe(burst * 2);

  await store.start();
  await storesAre("up");
  const after = await everyone(["after"]);
  expect(answers(after)).toEqual({ answered: burst * 4, failed: [] });
  expect(allowed(after, "after")).toBe(burst);
}

function allowed(reports: readonly CallReport[], key: string): number {
  return reports.reduce((sum, report) => sum + (report.allowed[key] ?? 0), 0);
}

function answers(reports: readonly CallReport[]) {
  return {
    answered: reports.reduce((sum, { answered }) => sum + answered, 0),
    failed: reports.flatMap(({ failed }) => failed),
  };
}
