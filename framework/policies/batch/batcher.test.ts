import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import {
  type Batcher,
  BatcherError,
  type BatcherEvent,
  type BatcherOptions,
  createBatcher,
} from "./batcher.ts";

/** Lets everything happen that can happen without time passing. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) {
    await Promise.resolve();
  }
}

function open<T = number>(options: Partial<BatcherOptions<T>> = {}) {
  const clock = createFakeClock();
  const batches: T[][] = [];
  const events: BatcherEvent[] = [];
  const batcher = createBatcher<T>({
    name: "test",
    clock,
    random: () => 0.5,
    onEvent: (event) => events.push(event),
    write: async (items) => {
      batches.push([...items]);
    },
    ...options,
  });
  return { clock, batches, events, batcher };
}

/** What became of an item so far. */
function outcome(added: Promise<void>): { state: string } {
  const result = { state: "pending" };
  added.then(
    () => {
      result.state = "written";
    },
    (error: Error) => {
      result.state = error instanceof BatcherError ? error.reason : error.message;
    },
  );
  return result;
}

test("items wait for others until the first has waited long enough", async () => {
  const { clock, batches, batcher } = open({ maxDelayMs: 100 });
  const first = outcome(batcher.add(1));
  clock.advance(60);
  batcher.add(2);
  clock.advance(39);
  await settle();
  expect(batches).toEqual([]);
  expect(first.state).toBe("pending");
  clock.advance(1);
  await settle();
  expect(batches).toEqual([[1, 2]]);
  expect(first.state).toBe("written");
  expect(clock.pending).toBe(0);
});

test("a batch that is complete is written at once, by number or by bytes", async () => {
  const byNumber = open({ maxItems: 2 });
  byNumber.batcher.add(1);
  byNumber.batcher.add(2);
  await settle();
  expect(byNumber.batches).toEqual([[1, 2]]);

  const byBytes = open({ maxBytes: 10, sizeOf: (item: number) => item });
  for (const item of [4, 5, 4, 20, 1]) {
    byBytes.batcher.add(item);
  }
  await settle();
  // What alone is too large goes alone.
  expect(byBytes.batches).toEqual([[4, 5], [4], [20]]);
});

test("nothing is acknowledged before it is written", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { batcher } = open({ maxItems: 1, write: () => promise });
  const added = outcome(batcher.add(1));
  await settle();
  expect(added.state).toBe("pending");
  resolve();
  await settle();
  expect(added.state).toBe("written");
});

test("there is one write at a time, and items keep their order", async () => {
  let running = 0;
  const written: number[] = [];
  const { batcher } = open({
    maxItems: 3,
    async write(items) {
      expect(++running).toBe(1);
      await Promise.resolve();
      written.push(...items);
      running--;
    },
  });
  const all = Array.from({ length: 20 }, (_, item) => batcher.add(item));
  await batcher.flush();
  await Promise.all(all);
  expect(written).toEqual(Array.from({ length: 20 }, (_, item) => item));
});

test("a failed write is repeated with growing waits, then rejected to exactly its items", async () => {
  let down = true;
  const { clock, batcher, events } = open({
    maxItems: 2,
    maxRetries: 2,
    retryDelayMs: 100,
    async write() {
      if (down) {
        throw new Error("down");
      }
    },
  });
  const doomed = [outcome(batcher.add(1)), outcome(batcher.add(2))];
  const later = [outcome(batcher.add(3)), outcome(batcher.add(4))];
  for (let turn = 0; turn < 2; turn++) {
    await settle();
    clock.advance(100);
  }
  await settle();
  expect(doomed.map(({ state }) => state)).toEqual(["down", "down"]);
  expect(later.map(({ state }) => state)).toEqual(["pending", "pending"]);
  down = false;
  clock.advance(100);
  await settle();
  expect(later.map(({ state }) => state)).toEqual(["written", "written"]);
  expect(events.flatMap((event) => (event.kind === "retrying" ? [event.delayMs] : []))).toEqual([
    50, 100, 50,
  ]);
  expect(batcher.stats()).toMatchObject({ written: 2, rejected: 2, batches: 1, failures: 4, pending: 0 });
});

test("one item at fault is rejected alone, and the rest of its batch is written in order", async () => {
  const written: number[] = [];
  const { batcher } = open({
    maxItems: 100,
    isTransient: () => false,
    async write(items) {
      if (items.includes(37)) {
        throw new Error("poison");
      }
      written.push(...items);
    },
  });
  const results = Array.from({ length: 100 }, (_, item) => outcome(batcher.add(item)));
  await batcher.flush();
  await settle();
  expect(results.flatMap(({ state }, item) => (state === "written" ? [] : [[item, state]]))).toEqual([
    [37, "poison"],
  ]);
  expect(written).toEqual(Array.from({ length: 100 }, (_, item) => item).filter((item) => item !== 37));
  // Halving finds it in as many steps as the number has bits.
  expect(batcher.stats().failures).toBeLessThanOrEqual(8);
});

test("when there is no room, items are refused, and taken again when there is", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { batcher, events } = open({ maxItems: 2, maxPending: 3, write: () => promise });
  const results = [1, 2, 3, 4, 5].map((item) => outcome(batcher.add(item)));
  await settle();
  expect(results.map(({ state }) => state)).toEqual(["pending", "pending", "pending", "full", "full"]);
  expect(events).toEqual([{ kind: "full", pending: 3 }]);
  resolve();
  await settle();
  await batcher.flush();
  const later = outcome(batcher.add(6));
  await batcher.flush();
  expect(later.state).toBe("written");
  expect(batcher.stats()).toMatchObject({ written: 4, refused: 2, pending: 0 });
});

test("what waits is bounded in bytes, but one item always has room", async () => {
  const { batcher } = open({ maxPendingBytes: 10, sizeOf: (item: number) => item });
  const results = [100, 1].map((item) => outcome(batcher.add(item)));
  await batcher.flush();
  expect(results.map(({ state }) => state)).toEqual(["written", "full"]);
  const more = [6, 4, 1].map((item) => outcome(batcher.add(item)));
  expect(batcher.stats().pendingBytes).toBe(10);
  await batcher.flush();
  expect(more.map(({ state }) => state)).toEqual(["written", "written", "full"]);
  expect(batcher.stats().pendingBytes).toBe(0);
});

test("where the newest matter most, the oldest that wait are dropped, a tenth at once", async () => {
  const { batcher, batches, events } = open({ maxItems: 1_000, maxPending: 20, whenFull: "drop-oldest" });
  const results = Array.from({ length: 23 }, (_, item) => outcome(batcher.add(item)));
  await batcher.flush();
  await settle();
  expect(results.slice(0, 5).map(({ state }) => state)).toEqual([
    "dropped",
    "dropped",
    "dropped",
    "dropped",
    "written",
  ]);
  expect(batches.flat()).toEqual(Array.from({ length: 19 }, (_, item) => item + 4));
  expect(events.slice(0, 2)).toEqual([
    { kind: "dropped", items: 2 },
    { kind: "dropped", items: 2 },
  ]);
});

test("a flush waits for what was added before, not for what comes later", async () => {
  const gates: (() => void)[] = [];
  const { batcher } = open({ maxItems: 1, write: () => new Promise((resolve) => gates.push(resolve)) });
  batcher.add(1);
  const flushed = outcome(batcher.flush());
  batcher.add(2);
  await settle();
  expect(flushed.state).toBe("pending");
  gates[0]?.();
  await settle();
  expect(flushed.state).toBe("written");
  await expect(open().batcher.flush()).resolves.toBeUndefined();
});

test("closing writes what waits, at once, and takes nothing more", async () => {
  const { batcher, batches, clock } = open();
  const added = outcome(batcher.add(1));
  await Promise.all([batcher.close(), batcher.close()]);
  expect(added.state).toBe("written");
  expect(batches).toEqual([[1]]);
  await expect(batcher.add(2)).rejects.toMatchObject({ reason: "closed" });
  expect(clock.pending).toBe(0);
});

test("closing cuts the wait before a repetition short", async () => {
  let down = true;
  const { batcher, clock } = open({
    maxItems: 1,
    retryDelayMs: 60_000,
    maxRetryDelayMs: 60_000,
    async write() {
      if (down) {
        throw new Error("down");
      }
    },
  });
  const added = outcome(batcher.add(1));
  await settle();
  down = false;
  await batcher.close();
  expect(added.state).toBe("written");
  expect(clock.pending).toBe(0);
});

test("what a store that hangs does not take before the deadline is rejected, and the write is told", async () => {
  let told: AbortSignal | undefined;
  const { batcher, clock } = open({
    maxItems: 1,
    write: (_, signal) => {
      told = signal;
      return new Promise(() => undefined);
    },
  });
  const results = [1, 2, 3].map((item) => outcome(batcher.add(item)));
  const closed = outcome(batcher.close({ deadlineMs: 1_000 }));
  await settle();
  expect(closed.state).toBe("pending");
  clock.advance(1_000);
  await settle();
  expect(closed.state).toBe("written");
  expect(results.map(({ state }) => state)).toEqual(["unfinished", "unfinished", "unfinished"]);
  expect(told?.aborted).toBe(true);
  expect(batcher.stats()).toMatchObject({ pending: 0, pendingBytes: 0, rejected: 3 });
});

test("a listener that throws breaks nothing", async () => {
  const { batcher } = open({
    onEvent() {
      throw new Error("listener");
    },
  });
  const added = batcher.add(1);
  await batcher.flush();
  await expect(added).resolves.toBeUndefined();
});

test("the statistics tell sizes and waits", async () => {
  const { batcher, clock } = open({ maxDelayMs: 100 });
  batcher.add(1);
  clock.advance(50);
  batcher.add(2);
  clock.advance(50);
  await settle();
  expect(batcher.stats()).toEqual({
    name: "test",
    pending: 0,
    pendingBytes: 0,
    maxPending: 10_000,
    written: 2,
    rejected: 0,
    refused: 0,
    dropped: 0,
    batches: 1,
    failures: 0,
    averageItems: 2,
    lastWriteTime: clock.now(),
    averageWaitMs: 75,
    maxWaitMs: 100,
  });
});

type Step =
  | { readonly kind: "add"; readonly bytes: number; readonly poisoned: boolean }
  | { readonly kind: "pass"; readonly ms: number }
  | { readonly kind: "answer"; readonly fails: boolean }
  | { readonly kind: "flush" }
  | { readonly kind: "close"; readonly deadlineMs: number };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        kind: fc.constant("add" as const),
        bytes: fc.nat(12),
        poisoned: fc.nat(9).map((draw) => draw === 0),
      }),
    },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("pass" as const), ms: fc.nat(200) }) },
    { weight: 6, arbitrary: fc.record({ kind: fc.constant("answer" as const), fails: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("flush" as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("close" as const), deadlineMs: fc.nat(500) }) },
  ),
  { maxLength: 80, size: "max" },
);

test("under random failures, floods and closes, the store holds exactly what was acknowledged, once and in order", async () => {
  interface Item {
    readonly id: number;
    readonly bytes: number;
    readonly poisoned: boolean;
  }
  await fc.assert(
    fc.asyncProperty(
      steps,
      fc.constantFrom("refuse" as const, "drop-oldest" as const),
      async (plan, whenFull) => {
        const store: number[] = [];
        const transient = new Error("transient");
        let answer: ((fails: boolean) => void) | undefined;
        let abandoned: readonly Item[] = [];
        const limits = { maxItems: 4, maxBytes: 30, maxPending: 12, maxPendingBytes: 60 };
        const { batcher, clock } = open<Item>({
          ...limits,
          whenFull,
          maxRetries: 3,
          sizeOf: ({ bytes }) => bytes,
          isTransient: (error) => error === transient,
          write(items, signal) {
            expect(answer).toBeUndefined();
            expect(items.length).toBeLessThanOrEqual(limits.maxItems);
            expect(items.length === 1 || items.reduce((sum, { bytes }) => sum + bytes, 0) <= 30).toBe(true);
            return new Promise((resolve, reject) => {
              signal.addEventListener("abort", () => {
                abandoned = items;
              });
              answer = (fails) => {
                answer = undefined;
                if (fails || items.some(({ poisoned }) => poisoned)) {
                  reject(fails ? transient : new Error("poison"));
                } else {
                  store.push(...items.map(({ id }) => id));
                  resolve();
                }
              };
            });
          },
        });
        const results: { state: string }[] = [];
        for (const step of plan) {
          switch (step.kind) {
            case "add":
              results.push(outcome(batcher.add({ id: results.length, ...step })));
              break;
            case "pass":
              clock.advance(step.ms);
              break;
            case "answer":
              answer?.(step.fails);
              break;
            case "flush":
              void batcher.flush();
              break;
            case "close":
              void batcher.close(step);
              break;
          }
          await settle();
          expect(batcher.stats().pending).toBeLessThanOrEqual(limits.maxPending);
          expect(batcher.stats().pendingBytes).toBeLessThanOrEqual(limits.maxPendingBytes);
        }
        const closed = outcome(batcher.close({ deadlineMs: 10_000 }));
        await settle();
        for (let turn = 0; turn < 200 && closed.state === "pending"; turn++) {
          answer?.(false);
          clock.advance(50);
          await settle();
        }
        answer?.(false);
        await settle();
        expect(closed.state).toBe("written");
        const acknowledged = results.flatMap(({ state }, id) => (state === "written" ? [id] : []));
        // Of what was being written when its time was up, nobody knows; everything else is told.
        const unsure = new Set(abandoned.map(({ id }) => id));
        expect(store.filter((id) => !unsure.has(id))).toEqual(acknowledged.filter((id) => !unsure.has(id)));
        expect(new Set(store).size).toBe(store.length);
        const states = Object.groupBy(results, ({ state }) => state);
        const count = (...names: string[]) =>
          names.reduce((sum, each) => sum + (states[each]?.length ?? 0), 0);
        expect(batcher.stats()).toMatchObject({
          pending: 0,
          pendingBytes: 0,
          written: count("written"),
          rejected: count("transient", "poison", "unfinished"),
          refused: count("full", "closed"),
          dropped: count("dropped"),
        });
        expect(clock.pending).toBe(0);
      },
    ),
    { numRuns: 150 },
  );
});

test("a hundred thousand items a second are no burden", async () => {
  const { batcher, batches } = open<number>({ maxItems: 1_000, maxPending: 200_000 });
  const fill = (one: Batcher<number>) => Array.from({ length: 100_000 }, (_, item) => one.add(item));
  await Promise.all([Promise.all(fill(batcher)), batcher.flush()]);
  expect(batches.length).toBe(100);
});

test("a process that closes a batcher does not end before what waits is written", () => {
  const script = `
    import { createBatcher } from ${JSON.stringify(import.meta.resolve("./batcher.ts"))};
    let failures = 3;
    const write = async (items) => { if (failures-- > 0) { throw new Error("not yet"); } console.log(items.join()); };
    const batcher = createBatcher({ name: "last words", write, retryDelayMs: 5 });
    batcher.add("a");
    batcher.add("b");
    await batcher.close();
  `;
  expect(
    execFileSync(process.execPath, ["--input-type=module", "--eval", script], { encoding: "utf8" }),
  ).toBe("a,b\n");
});

test("a hook that fails fails what it was asked about, and nothing else", async () => {
  const broken = new TypeError("the hook is broken");
  const { clock, batches, batcher } = open({
    maxDelayMs: 0,
    maxRetries: 1,
    sizeOf: (item) => {
      if (item === 1) {
        throw broken;
      }
      return 1;
    },
    isTransient: () => {
      throw broken;
    },
    write: async (items) => {
      batches.push([...items]);
      if (batches.length <= 2) {
        throw new Error("the store is down");
      }
    },
  });
  await expect(batcher.add(1)).rejects.toBe(broken);
  const second = outcome(batcher.add(2));
  await settle();
  clock.advance(5_000);
  await settle();
  expect(second.state).toBe("the store is down");
  await batcher.add(3);
  expect(batches).toEqual([[2], [2], [3]]);
  await batcher.close();
});

test.each([
  { maxItems: Number.NaN },
  { maxBytes: Number.NaN },
  { maxBytes: -1 },
  { maxDelayMs: Number.NaN },
  { maxPending: 0 },
  { maxPendingBytes: Number.NaN },
  { maxRetries: Number.NaN },
  { retryDelayMs: -1 },
  { maxRetryDelayMs: Number.NaN },
])("options that mean nothing are refused: %o", (options) => {
  expect(() => open(options)).toThrow(RangeError);
});

test("a size that is no number counts as nothing, and does not shut the batcher", async () => {
  const { batches, batcher } = open({ maxDelayMs: 0, sizeOf: () => Number.NaN, maxPendingBytes: 10 });
  await Promise.all([batcher.add(1), batcher.add(2), batcher.add(3)]);
  expect(batches.flat()).toEqual([1, 2, 3]);
  expect(batcher.stats()).toMatchObject({ pendingBytes: 0, refused: 0 });
});
