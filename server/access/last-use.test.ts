import { expect, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { createLastUse } from "./last-use.ts";

function recorder() {
  const written: Record<string, string>[] = [];
  let failures = 0;
  return {
    written,
    failNext() {
      failures += 1;
    },
    async touch(uses: ReadonlyMap<string, Date>) {
      if (failures > 0) {
        failures -= 1;
        throw new Error("the database is away");
      }
      written.push(Object.fromEntries([...uses].map(([id, time]) => [id, time.toISOString()])));
    },
  };
}

test("uses are written together, and each key once a minute", async () => {
  const clock = createFakeClock(Date.UTC(2026, 0, 1, 10, 0, 20));
  const store = recorder();
  const lastUse = createLastUse(store, clock, silentLogger);
  for (let call = 0; call < 1_000; call++) {
    lastUse.mark("one");
    lastUse.mark("two");
  }
  clock.advance(5_000);
  lastUse.mark("one");
  clock.advance(5_000);
  expect(store.written).toEqual([{ one: "2026-01-01T10:00:00.000Z", two: "2026-01-01T10:00:00.000Z" }]);
  clock.advance(30_000);
  lastUse.mark("one");
  clock.advance(5_000);
  expect(store.written.slice(1)).toEqual([{ one: "2026-01-01T10:01:00.000Z" }]);
  await lastUse.close();
  expect(clock.pending).toBe(0);
});

test("what could not be written is written with what follows, and what is left at the end", async () => {
  const clock = createFakeClock(Date.UTC(2026, 0, 1, 10, 0, 20));
  const store = recorder();
  const lastUse = createLastUse(store, clock, silentLogger);
  store.failNext();
  lastUse.mark("one");
  clock.advance(5_000);
  await expect.poll(() => clock.pending).toBe(1);
  lastUse.mark("two");
  await lastUse.close();
  expect(store.written).toEqual([{ one: "2026-01-01T10:00:00.000Z", two: "2026-01-01T10:00:00.000Z" }]);
  expect(clock.pending).toBe(0);
});
