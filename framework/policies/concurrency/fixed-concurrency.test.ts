import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import {
  ConcurrencyRefusedError,
  createFixedConcurrency,
  type FixedConcurrencyEvent,
} from "./fixed-concurrency.ts";

const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Work that goes on until it is told how to end. */
function pieces() {
  const begun: number[] = [];
  const ends = new Map<number, { succeed(): void; fail(): void }>();
  const piece = (number: number) => () =>
    new Promise<number>((resolve, reject) => {
      begun.push(number);
      ends.set(number, { succeed: () => resolve(number), fail: () => reject(new Error(`${number} failed`)) });
    });
  return { begun, ends, piece };
}

test("no more is done at once than the limit, in the order in which it came", async () => {
  const { begun, ends, piece } = pieces();
  const cap = createFixedConcurrency({ limit: 2 });
  const results = [1, 2, 3, 4].map((number) => cap.run(piece(number)));
  await settled();
  expect(begun).toEqual([1, 2]);
  expect(cap.stats()).toMatchObject({ running: 2, waiting: 2 });
  ends.get(2)?.succeed();
  await settled();
  expect(begun).toEqual([1, 2, 3]);
  for (const number of [1, 3, 4]) {
    ends.get(number)?.succeed();
    await settled();
  }
  await expect(Promise.all(results)).resolves.toEqual([1, 2, 3, 4]);
  expect(cap.stats()).toMatchObject({ running: 0, waiting: 0, begun: 4 });
});

test("a failure, thrown or rejected, does nothing to the others", async () => {
  const cap = createFixedConcurrency({ limit: 1 });
  const results = await Promise.allSettled([
    cap.run(() => Promise.reject(new Error("rejected"))),
    cap.run(() => {
      throw new Error("thrown");
    }),
    cap.run(async () => "done"),
  ]);
  expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected", "fulfilled"]);
});

test("it tells how long work has waited for its turn", async () => {
  const clock = createFakeClock();
  const { ends, piece } = pieces();
  const cap = createFixedConcurrency({ limit: 1, clock });
  const results = [1, 2, 3].map((number) => cap.run(piece(number)));
  for (const number of [1, 2, 3]) {
    clock.advance(100);
    ends.get(number)?.succeed();
    await settled();
  }
  await Promise.all(results);
  expect(cap.stats()).toMatchObject({ begun: 3, waited: 2, totalWaitMs: 300, maxWaitMs: 200 });
});

test("a queue that is full refuses", async () => {
  const { ends, piece } = pieces();
  const events: FixedConcurrencyEvent[] = [];
  const cap = createFixedConcurrency({ limit: 2, maxWaiting: 1, onEvent: (event) => events.push(event) });
  const results = [1, 2, 3].map((number) => cap.run(piece(number)));
  await expect(cap.run(piece(4))).rejects.toThrow(new ConcurrencyRefusedError("full"));
  await expect(cap.run(piece(4))).rejects.toMatchObject({ reason: "full" });
  expect(events).toEqual([
    { kind: "refused", reason: "full" },
    { kind: "refused", reason: "full" },
  ]);
  for (const number of [1, 2, 3]) {
    ends.get(number)?.succeed();
    await settled();
  }
  await expect(Promise.all(results)).resolves.toEqual([1, 2, 3]);
});

test("bounds that are none are refused", () => {
  expect(() => createFixedConcurrency({ limit: 0 })).toThrow(RangeError);
  expect(() => createFixedConcurrency({ maxWaiting: -1 })).toThrow(RangeError);
});

test("what waits can be left, and makes room", async () => {
  const { begun, ends, piece } = pieces();
  const cap = createFixedConcurrency({ limit: 1, maxWaiting: 1 });
  const first = cap.run(piece(1));
  const caller = new AbortController();
  const second = cap.run(piece(2), { signal: caller.signal });
  await settled();
  caller.abort(new Error("gone"));
  await expect(second).rejects.toThrow("gone");
  const third = cap.run(piece(3));
  ends.get(1)?.succeed();
  await first;
  await settled();
  expect(begun).toEqual([1, 3]);
  ends.get(3)?.succeed();
  await third;
  await expect(cap.run(piece(4), { signal: caller.signal })).rejects.toThrow("gone");
});

test("a deadline ends the wait, not the work", async () => {
  const clock = createFakeClock();
  const { begun, ends, piece } = pieces();
  const cap = createFixedConcurrency({ limit: 1, clock });
  const deadline = clock.now() + 100;
  const first = cap.run(piece(1), { deadline });
  await settled();
  const second = cap.run(piece(2), { deadline });
  clock.advance(100);
  await expect(second).rejects.toMatchObject({ reason: "deadline" });
  await expect(cap.run(piece(3), { deadline })).rejects.toMatchObject({ reason: "deadline" });
  ends.get(1)?.succeed();
  await expect(first).resolves.toBe(1);
  expect(begun).toEqual([1]);
  expect(clock.pending).toBe(0);
});

test("closing refuses what waits and lets the rest be done", async () => {
  const { ends, piece } = pieces();
  const cap = createFixedConcurrency({ limit: 1 });
  const first = cap.run(piece(1));
  await settled();
  const second = cap.run(piece(2));
  cap.close();
  await expect(second).rejects.toMatchObject({ reason: "closed" });
  await expect(cap.run(piece(3))).rejects.toMatchObject({ reason: "closed" });
  ends.get(1)?.succeed();
  await expect(first).resolves.toBe(1);
});

test("callers that gave up behind work that hangs are not kept", async () => {
  const cap = createFixedConcurrency({ limit: 1, maxWaiting: 10 });
  void cap.run(() => new Promise(() => {}));
  await settled();
  const abandoned: WeakRef<object>[] = [];
  for (let round = 0; round < 500; round++) {
    const caller = new AbortController();
    const work = async () => caller;
    abandoned.push(new WeakRef(work));
    const result = cap.run(work, { signal: caller.signal });
    caller.abort(new Error("gone"));
    await expect(result).rejects.toThrow("gone");
  }
  expect(cap.stats()).toMatchObject({ waiting: 0, running: 1 });
  await settled();
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
  expect(abandoned.filter((work) => work.deref() !== undefined).length).toBeLessThan(100);
});

test("whatever happens, the cap holds, the order is kept, and everything ends once", async () => {
  const step = fc.oneof(
    fc.constant({ kind: "run" as const, which: 0 }),
    fc.record({
      kind: fc.constantFrom("succeed" as const, "fail" as const, "leave" as const),
      which: fc.nat(20),
    }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.array(step, { maxLength: 150 }),
      async (limit, steps) => {
        const { begun, ends, piece } = pieces();
        const cap = createFixedConcurrency({ limit, maxWaiting: 8 });
        const callers: AbortController[] = [];
        let outcomes = 0;
        for (const { kind, which } of steps) {
          switch (kind) {
            case "run": {
              const caller = new AbortController();
              callers.push(caller);
              const count = () => {
                outcomes += 1;
              };
              cap.run(piece(callers.length), { signal: caller.signal }).then(count, count);
              break;
            }
            case "succeed":
            case "fail":
              ends.get(begun[which] ?? 0)?.[kind]();
              ends.delete(begun[which] ?? 0);
              break;
            case "leave":
              callers[callers.length - 1 - which]?.abort(new Error("gone"));
          }
          await settled();
          const { running, waiting } = cap.stats();
          expect(running).toBe(ends.size);
          expect(running).toBeLessThanOrEqual(limit);
          expect(waiting).toBeLessThanOrEqual(8);
          expect(waiting > 0 && running < limit).toBe(false);
          expect(begun).toEqual(begun.toSorted((one, other) => one - other));
        }
        while (ends.size > 0) {
          for (const [number, { succeed }] of [...ends]) {
            ends.delete(number);
            succeed();
          }
          await settled();
        }
        expect(outcomes).toBe(callers.length);
      },
    ),
    { numRuns: 60 },
  );
});
