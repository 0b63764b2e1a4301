import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import type { PurgeScope } from "./durable-store.ts";
import {
  createResponseCache,
  type Loaded,
  type ResponseCacheEvent,
  type ResponseCacheOptions,
} from "./response-cache.ts";
import { createMemoryStore, type MemoryStore } from "./test-support/memory-store.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const secrets = [randomBytes(32)];

/** Lets everything happen that can happen without time passing. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 60; turn++) {
    await Promise.resolve();
  }
}

function open(options: Partial<ResponseCacheOptions> = {}) {
  const clock = createFakeClock();
  const events: ResponseCacheEvent[] = [];
  const cache = createResponseCache({
    name: "test",
    ttlMs: MINUTE,
    clock,
    random: () => 0,
    onEvent: (event) => events.push(event),
    ...options,
  });
  let loads = 0;
  return {
    clock,
    events,
    cache,
    /** Answers `text`, after `ms` of loading. */
    load:
      (text: string, extra: Partial<Loaded> = {}, ms = 0) =>
      async () => {
        loads++;
        clock.advance(ms);
        return { value: Buffer.from(text), ...extra };
      },
    loads: () => loads,
    /** What `getOrLoad` gives, in short. */
    async ask(key: string, text: string, call = {}) {
      const answer = await cache.getOrLoad(key, this.load(text), call);
      return `${answer.state} ${Buffer.from(answer.value)} ${answer.ageMs}`;
    },
  };
}

/** Two replicas with one store. */
function openTwo(options: Partial<ResponseCacheOptions> = {}, store: MemoryStore = createMemoryStore()) {
  const durable = { store, secrets };
  return { store, one: open({ durable, ...options }), other: open({ durable, ...options }) };
}

test("an answer is loaded once and given until its time is over", async () => {
  const one = open();
  expect(await one.ask("k", "a")).toBe("miss a 0");
  one.clock.advance(MINUTE - 1);
  expect(await one.ask("k", "b")).toBe("hit a 59999");
  one.clock.advance(1);
  expect(await one.ask("k", "c")).toBe("miss c 0");
  expect(one.cache.stats()).toMatchObject({
    memoryHits: 1,
    misses: 2,
    expired: 1,
    hitRate: 1 / 3,
    entries: 1,
  });
});

test("the loader, then the call, then the cache say how long", async () => {
  const one = open();
  const shown = async (key: string) => (await one.cache.getOrLoad(key, one.load("x"))).state;
  await one.cache.getOrLoad("loader", one.load("a", { ttlMs: 1 * SECOND }), { ttlMs: 5 * SECOND });
  await one.cache.getOrLoad("call", one.load("a"), { ttlMs: 5 * SECOND });
  await one.cache.getOrLoad("cache", one.load("a"));
  await one.cache.getOrLoad("never", one.load("a", { ttlMs: 0 }));
  one.clock.advance(1 * SECOND);
  expect([await shown("loader"), await shown("call"), await shown("never")]).toEqual(["miss", "hit", "miss"]);
  one.clock.advance(4 * SECOND);
  expect([await shown("call"), await shown("cache")]).toEqual(["miss", "hit"]);
});

test("a hundred calls for what is not there load it once", async () => {
  const one = open();
  const gate = Promise.withResolvers<Loaded>();
  let loads = 0;
  const load = () => {
    loads++;
    return gate.promise;
  };
  const calls = Array.from({ length: 100 }, () => one.cache.getOrLoad("k", load));
  await settle();
  gate.resolve({ value: Buffer.from("a"), tokens: 10, costUsd: 0.5 });
  const answers = await Promise.all(calls);
  expect(loads).toBe(1);
  expect(new Set(answers.map(({ state }) => state))).toEqual(new Set(["miss"]));
  expect(one.cache.stats()).toMatchObject({ loads: 1, misses: 100, loadWaits: 99, tokensSaved: 990 });
  expect(one.cache.stats().sharing).toMatchObject({ led: 1, joined: 99, inFlight: 0, coalesceRate: 0.99 });
});

test("a caller that leaves harms nobody, and the last one to leave ends the load", async () => {
  const one = open();
  const gate = Promise.withResolvers<Loaded>();
  let given: AbortSignal | undefined;
  const load = (signal: AbortSignal) => {
    given = signal;
    return gate.promise;
  };
  const [first, second] = [new AbortController(), new AbortController()];
  const leaving = one.cache.getOrLoad("k", load, { signal: first.signal });
  const staying = one.cache.getOrLoad("k", load, { signal: second.signal });
  await settle();
  first.abort(new Error("left"));
  await expect(leaving).rejects.toThrow("left");
  expect(given?.aborted).toBe(false);
  gate.resolve({ value: Buffer.from("a") });
  expect((await staying).state).toBe("miss");
  expect(await one.ask("k", "b")).toBe("hit a 0");

  const alone = new AbortController();
  const hanging = (signal: AbortSignal) => {
    given = signal;
    return new Promise<Loaded>(() => undefined);
  };
  const abandoned = one.cache.getOrLoad("other", hanging, { signal: alone.signal });
  await settle();
  alone.abort(new Error("left too"));
  await expect(abandoned).rejects.toThrow("left too");
  expect(given?.aborted).toBe(true);
  await expect(one.cache.getOrLoad("k", load, { signal: AbortSignal.abort("gone") })).rejects.toBe("gone");
});

test("a caller that leaves before loading begins leaves nothing behind", async () => {
  const one = open();
  const caller = new AbortController();
  const left = one.cache.getOrLoad("k", one.load("a"), { signal: caller.signal });
  caller.abort(new Error("left"));
  await expect(left).rejects.toThrow("left");
  expect(await one.ask("k", "b")).toBe("miss b 0");
  expect(one.cache.stats()).toMatchObject({ loads: 1, loadWaits: 0 });
});

test("a failure goes to all that wait and is not kept", async () => {
  const one = open();
  const failing = () => Promise.reject(new Error("broken"));
  const calls = [1, 2, 3].map(() => one.cache.getOrLoad("k", failing));
  for (const call of calls) {
    await expect(call).rejects.toThrow("broken");
  }
  expect(await one.ask("k", "a")).toBe("miss a 0");
  expect(one.cache.stats()).toMatchObject({ loads: 2, loadFailures: 1 });
});

test("a load that hangs fails in the end, and the next call loads anew", async () => {
  const one = open({ loadTimeoutMs: MINUTE });
  let given: AbortSignal | undefined;
  const hanging = one.cache.getOrLoad("k", (signal) => {
    given = signal;
    return new Promise(() => undefined);
  });
  await settle();
  one.clock.advance(MINUTE);
  await expect(hanging).rejects.toMatchObject({ name: "TimeoutError" });
  expect(given?.aborted).toBe(true);
  expect(await one.ask("k", "a")).toBe("miss a 0");
  expect(one.clock.pending).toBe(0);
});

test("for a while after its time the old answer is given at once, and one load in the background replaces it", async () => {
  const one = open({ staleWhileRevalidateMs: 10 * SECOND });
  await one.ask("k", "a");
  one.clock.advance(MINUTE + SECOND);
  expect(await Promise.all([one.ask("k", "b"), one.ask("k", "c"), one.ask("k", "d")])).toEqual([
    "stale a 61000",
    "stale a 61000",
    "stale a 61000",
  ]);
  await settle();
  expect(await one.ask("k", "e")).toBe("hit b 0");
  one.clock.advance(MINUTE + 10 * SECOND);
  expect(await one.ask("k", "f")).toBe("miss f 0");
  expect(one.cache.stats()).toMatchObject({ staleHits: 3, memoryHits: 4, refreshes: 1, loads: 3 });
});

test("when the background load fails the old answer stays, and the next attempt comes a second later", async () => {
  const one = open({ staleWhileRevalidateMs: 10 * SECOND });
  await one.ask("k", "a");
  one.clock.advance(MINUTE);
  const failing = () => Promise.reject(new Error("broken"));
  for (let call = 0; call < 5; call++) {
    expect((await one.cache.getOrLoad("k", failing)).state).toBe("stale");
    await settle();
  }
  expect(one.events).toMatchObject([{ kind: "refresh-failed", key: "k" }]);
  one.clock.advance(SECOND);
  expect(await one.ask("k", "b")).toBe("stale a 61000");
  await settle();
  expect(await one.ask("k", "c")).toBe("hit b 0");
});

test("the closer the end and the slower the load, the likelier a hit loads anew before the time is over", async () => {
  let draw = 0;
  const one = open({ random: () => draw });
  await one.cache.getOrLoad("k", one.load("slow", {}, 5 * SECOND));
  one.clock.advance(MINUTE - 4 * SECOND);
  // Due when 5 s × -ln(1 - draw) reaches the 4 s that are left.
  draw = 0.55;
  await one.ask("k", "b");
  await settle();
  expect(one.loads()).toBe(1);
  draw = 0.56;
  expect(await one.ask("k", "b")).toMatch(/^hit slow/);
  await settle();
  expect(one.loads()).toBe(2);
  draw = 0;
  expect(await one.ask("k", "c")).toMatch(/^hit b/);
});

test("the last good answer is there when there is no better one, with its age", async () => {
  const one = open({ maxStaleMs: 10 * MINUTE });
  await one.ask("k", "a");
  one.clock.advance(5 * MINUTE);
  await expect(one.cache.getOrLoad("k", () => Promise.reject(new Error("broken")))).rejects.toThrow("broken");
  const answer = await one.cache.lastGood("k");
  expect(answer).toMatchObject({ state: "stale", source: "memory", ageMs: 5 * MINUTE });
  expect(Buffer.from(answer?.value ?? []).toString()).toBe("a");
  expect(await one.cache.lastGood("k", { maxAgeMs: 5 * MINUTE })).toBeUndefined();
  expect(await one.cache.lastGood("other")).toBeUndefined();
  one.clock.advance(6 * MINUTE);
  expect(await one.cache.lastGood("k")).toBeUndefined();
});

test("purging by key, by tag or altogether forgets just that", async () => {
  const one = open();
  const fill = async () => {
    await one.ask("a", "1", { tags: ["tool/x"] });
    await one.ask("b", "1", { tags: ["tool/x", "agent/y"] });
    await one.ask("c", "1", { tags: ["agent/y"] });
  };
  const left = async () => {
    const answers = await Promise.all(["a", "b", "c"].map((key) => one.cache.lastGood(key)));
    return answers.map((answer) => answer !== undefined);
  };
  await fill();
  expect(await one.cache.purge({ kind: "key", key: "a" })).toBe(1);
  expect(await left()).toEqual([false, true, true]);
  await fill();
  expect(await one.cache.purge({ kind: "tag", tag: "tool/x" })).toBe(2);
  expect(await left()).toEqual([false, false, true]);
  await fill();
  expect(await one.cache.purge()).toBe(3);
  expect(await left()).toEqual([false, false, false]);
});

test("an answer that was asked for before a purge is not kept after it, nor given to later callers", async () => {
  const { one, other, store } = openTwo();
  const gate = Promise.withResolvers<Loaded>();
  const early = one.cache.getOrLoad("k", () => gate.promise, { tags: ["t"] });
  await settle();
  await other.cache.purge({ kind: "tag", tag: "t" });
  expect(await one.ask("k", "new")).toBe("miss new 0");
  gate.resolve({ value: Buffer.from("old") });
  expect(Buffer.from((await early).value).toString()).toBe("old");
  expect(await one.ask("k", "newer")).toBe("hit new 0");
  await one.cache.flush();
  expect(await other.ask("k", "newer")).toBe("hit new 0");
  expect(store.rows.size).toBe(1);
});

test("an answer that was read from the store before a purge and comes after it is not kept", async () => {
  const { one, store } = openTwo();
  await one.ask("k", "old");
  await one.cache.flush();
  const gate = Promise.withResolvers<void>();
  const slow: MemoryStore = {
    ...store,
    async read(cache, key, signal) {
      const sealed = await store.read(cache, key, signal);
      await gate.promise;
      return sealed;
    },
  };
  const { other } = openTwo({}, slow);
  const early = other.ask("k", "-");
  await settle();
  await one.cache.purge();
  gate.resolve();
  expect(await early).toBe("hit old 0");
  expect(await other.ask("k", "new")).toBe("miss new 0");
});

test("what still waits to be written when a purge comes is not read after it", async () => {
  const { one, other } = openTwo();
  await one.ask("k", "old");
  await other.cache.purge();
  await one.cache.flush();
  expect(await other.ask("k", "new")).toBe("miss new 0");
});

test("tools that are excluded are neither kept nor given, and that can change at any time", async () => {
  const excluded = new Set(["tool/x"]);
  const one = open({ excluded: (tag) => excluded.has(tag) });
  const call = { tags: ["tool/x"] };
  expect(await one.ask("k", "a", call)).toBe("excluded a 0");
  expect(await one.ask("k", "b", call)).toBe("excluded b 0");
  excluded.clear();
  expect(await one.ask("k", "c", call)).toBe("miss c 0");
  expect(await one.ask("k", "d", call)).toBe("hit c 0");
  excluded.add("tool/x");
  expect(await one.ask("k", "e", call)).toBe("excluded e 0");
  expect(one.cache.stats()).toMatchObject({ excluded: 3, misses: 1, memoryHits: 1 });
});

test("memory is bounded in bytes, and what is too large is given but not kept", async () => {
  const one = open({ maxBytes: 10_000, maxEntryBytes: 2_000 });
  for (let index = 0; index < 50; index++) {
    await one.ask(`${index}`, "x".repeat(1_000));
    expect(one.cache.stats().bytes).toBeLessThanOrEqual(10_000);
  }
  const { entries, evictions } = one.cache.stats();
  expect(entries + evictions).toBe(50);
  expect(entries).toBeGreaterThan(5);
  expect(await one.ask("large", "x".repeat(2_001))).toMatch(/^miss/);
  expect(await one.ask("large", "y")).toBe("miss y 0");
  expect(one.cache.stats().tooLarge).toBe(1);
});

test("a part of a larger buffer does not keep the buffer", async () => {
  const one = open();
  const part = new Uint8Array(1_000_000).subarray(0, 10);
  await one.cache.getOrLoad("k", async () => ({ value: part }));
  const { value } = await one.cache.getOrLoad("k", one.load("x"));
  expect(value.buffer.byteLength).toBe(10);
});

test("another replica finds in the store what the first has loaded, with its age and what it saves", async () => {
  const { one, other } = openTwo();
  await one.cache.getOrLoad("k", one.load("a", { tokens: 100, costUsd: 0.25 }));
  await one.cache.flush();
  other.clock.advance(10 * SECOND);
  const answer = await other.cache.getOrLoad("k", other.load("b"));
  expect(answer).toMatchObject({
    state: "hit",
    source: "durable",
    ageMs: 10 * SECOND,
    tokens: 100,
    costUsd: 0.25,
  });
  expect(await other.ask("k", "c")).toBe("hit a 10000");
  expect(other.cache.stats()).toMatchObject({
    durableHits: 1,
    memoryHits: 1,
    misses: 0,
    hitRate: 1,
    tokensSaved: 200,
    costSavedUsd: 0.5,
  });
});

test("of two replicas whose answers are past their time, the second takes what the first has loaded", async () => {
  const { one, other } = openTwo({ staleWhileRevalidateMs: 30 * SECOND });
  await one.ask("k", "a");
  await one.cache.flush();
  await other.ask("k", "-");
  for (const { clock } of [one, other]) {
    clock.advance(MINUTE + SECOND);
  }
  expect(await one.ask("k", "b")).toBe("stale a 61000");
  await settle();
  await one.cache.flush();
  expect(await other.ask("k", "c")).toBe("stale a 61000");
  await settle();
  expect(await other.ask("k", "d")).toBe("hit b 0");
  expect(other.loads()).toBe(0);
});

test("an answer from the store that is past its time is given and replaced, too", async () => {
  const { one, other } = openTwo({ staleWhileRevalidateMs: 30 * SECOND });
  await one.ask("k", "a");
  await one.cache.flush();
  other.clock.advance(MINUTE + SECOND);
  expect(await other.ask("k", "b")).toBe("stale a 61000");
  await settle();
  expect(await other.ask("k", "c")).toBe("hit b 0");
});

test("the last good answer is found in the store", async () => {
  const { one, other } = openTwo();
  await one.ask("k", "a");
  await one.cache.flush();
  other.clock.advance(5 * MINUTE);
  expect(await other.cache.lastGood("k")).toMatchObject({
    state: "stale",
    source: "durable",
    ageMs: 5 * MINUTE,
  });
});

test("entries that were changed, cut or moved in the store are dropped and counted", async () => {
  const { one, other, store } = openTwo();
  for (const key of ["changed", "cut", "moved", "intact"]) {
    await one.ask(key, "a");
  }
  await one.cache.flush();
  const row = (key: string) => [...store.rows].find(([, each]) => each.key === key) ?? fail();
  const replace = (key: string, sealed: Uint8Array) => {
    const [id, old] = row(key);
    store.rows.set(id, { ...old, sealed });
  };
  const changed = Uint8Array.from(row("changed")[1].sealed);
  changed.set([changed.at(-1) === 0 ? 1 : 0], changed.byteLength - 1);
  replace("changed", changed);
  replace("cut", row("cut")[1].sealed.subarray(0, -1));
  replace("moved", row("intact")[1].sealed);
  expect(await Promise.all(["changed", "cut", "moved", "intact"].map((key) => other.ask(key, "b")))).toEqual([
    "miss b 0",
    "miss b 0",
    "miss b 0",
    "hit a 0",
  ]);
  expect(other.cache.stats().durable).toMatchObject({ tampered: 3, unknownKey: 0 });
  expect(other.events.filter(({ kind }) => kind === "durable")).toHaveLength(3);
  expect([...store.rows.values()].map(({ key }) => key)).toEqual(["intact"]);
});

function fail(): never {
  throw new Error("there is no such row");
}

test("while the secret is replaced, entries of both are given", async () => {
  const store = createMemoryStore();
  const next = randomBytes(32);
  const before = open({ durable: { store, secrets } });
  const during = open({ durable: { store, secrets: [next, ...secrets] } });
  const after = open({ durable: { store, secrets: [next] } });
  await before.ask("old", "a");
  await during.ask("new", "a");
  await Promise.all([before.cache.flush(), during.cache.flush()]);
  expect(await during.ask("old", "b")).toBe("hit a 0");
  expect(await after.ask("new", "b")).toBe("hit a 0");
  expect(await after.ask("old", "b")).toBe("miss b 0");
  expect(after.cache.stats().durable).toMatchObject({ unknownKey: 1, tampered: 0 });
  // Those who still know the secret keep the entry.
  expect(store.rows.size).toBe(2);
});

test("a store that is down fails no call, and is left alone until it is back", async () => {
  const { one, store } = openTwo();
  store.state = "down";
  for (let index = 0; index < 10; index++) {
    expect(await one.ask(`${index}`, "a")).toBe("miss a 0");
  }
  expect(store.reads).toBe(3);
  expect(one.cache.stats().durable).toMatchObject({ reads: 3, readFailures: 3, readsSkipped: 7 });
  expect(await one.ask("0", "b")).toBe("hit a 0");

  store.state = "up";
  one.clock.advance(2 * SECOND);
  for (let index = 10; index < 20; index++) {
    await one.ask(`${index}`, "a");
  }
  expect(store.reads).toBe(13);
  await one.cache.flush();
  expect(store.rows.size).toBeGreaterThanOrEqual(10);
});

test("a store that hangs costs a call 50 ms, and nothing after three of them", async () => {
  const { one, store } = openTwo();
  store.state = "hanging";
  for (let index = 0; index < 3; index++) {
    const call = one.ask(`${index}`, "a");
    await settle();
    expect(one.loads()).toBe(index);
    one.clock.advance(50);
    expect(await call).toBe("miss a 0");
  }
  expect(await one.ask("3", "a")).toBe("miss a 0");
});

test("a purge that does not reach the store says so, and has cleared the memory", async () => {
  const { one, store } = openTwo();
  await one.ask("k", "a");
  await one.cache.flush();
  store.state = "down";
  await expect(one.cache.purge()).rejects.toThrow("the store is down");
  expect(await one.ask("k", "b")).toBe("miss b 0");
});

test("a closed cache has written everything, and goes on without the store", async () => {
  const { one, store } = openTwo();
  await one.ask("k", "a");
  await one.cache.close();
  expect(store.rows.size).toBe(1);
  expect(await one.ask("k", "b")).toBe("hit a 0");
  expect(await one.ask("other", "b")).toBe("miss b 0");
  expect(store.reads).toBe(1);
  expect(one.clock.pending).toBe(0);
});

type Step =
  | { readonly kind: "ask"; readonly replica: 0 | 1; readonly key: string }
  | { readonly kind: "change"; readonly key: string; readonly scope: "all" | "tag" | "key" }
  | { readonly kind: "pass"; readonly ms: number }
  | { readonly kind: "answer" }
  | { readonly kind: "flush"; readonly replica: 0 | 1 }
  | { readonly kind: "store"; readonly state: MemoryStore["state"] };

const anyReplica = fc.constantFrom(0 as const, 1 as const);
const anyKey = fc.constantFrom("a", "b", "c");
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({ kind: fc.constant("ask" as const), replica: anyReplica, key: anyKey }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant("change" as const),
        key: anyKey,
        scope: fc.constantFrom("all" as const, "tag" as const, "key" as const),
      }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("pass" as const), ms: fc.nat(40_000) }) },
    { weight: 6, arbitrary: fc.record({ kind: fc.constant("answer" as const) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("flush" as const), replica: anyReplica }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant("store" as const),
        state: fc.constantFrom("up", "down" as const),
      }),
    },
  ),
  { maxLength: 60, size: "max" },
);

test("whatever happens, no answer is older than allowed, nor from before a purge that was done when it was asked for", async () => {
  const staleWhileRevalidateMs = 20 * SECOND;
  await fc.assert(
    fc.asyncProperty(steps, async (plan) => {
      const store = createMemoryStore();
      const shared = createFakeClock();
      const options = {
        durable: { store, secrets },
        staleWhileRevalidateMs,
        clock: shared,
        random: () => 0.5,
      };
      const replicas = [open(options), open(options)] as const;
      /** What backends say now, and when each version was purged everywhere. */
      const versions: Record<string, number> = { a: 0, b: 0, c: 0 };
      const purged: Record<string, number> = { a: 0, b: 0, c: 0 };
      const waiting: (() => void)[] = [];
      const asked: Promise<void>[] = [];
      for (const step of plan) {
        switch (step.kind) {
          case "ask": {
            const { cache } = replicas[step.replica];
            const { key } = step;
            const oldest = purged[key] ?? 0;
            const load = () => {
              const value = Buffer.from(JSON.stringify([key, versions[key], shared.now()]));
              return new Promise<Loaded>((resolve) => waiting.push(() => resolve({ value })));
            };
            const answered = cache
              .getOrLoad(key, load, { tags: [`tag/${key}`] })
              .then(({ value, state, ageMs }) => {
                const [itsKey, version] = JSON.parse(Buffer.from(value).toString());
                expect(itsKey).toBe(key);
                expect(version).toBeGreaterThanOrEqual(oldest);
                if (state !== "miss") {
                  expect(ageMs).toBeLessThan(MINUTE + staleWhileRevalidateMs);
                }
              });
            asked.push(answered);
            break;
          }
          case "change": {
            const { key } = step;
            const scope: PurgeScope =
              step.scope === "all"
                ? { kind: "all" }
                : step.scope === "tag"
                  ? { kind: "tag", tag: `tag/${key}` }
                  : { kind: "key", key };
            const changed = step.scope === "all" ? ["a", "b", "c"] : [key];
            for (const each of changed) {
              versions[each] = (versions[each] ?? 0) + 1;
            }
            const reached = { ...versions };
            void replicas[0].cache.purge(scope).then(
              () => {
                for (const each of changed) {
                  purged[each] = Math.max(purged[each] ?? 0, reached[each] ?? 0);
                }
              },
              () => undefined,
            );
            break;
          }
          case "pass":
            shared.advance(step.ms);
            break;
          case "answer":
            waiting.shift()?.();
            break;
          case "flush":
            void replicas[step.replica].cache.flush();
            break;
          case "store":
            store.state = step.state;
            break;
        }
        await settle();
      }
      for (let turn = 0; turn < 100 && waiting.length > 0; turn++) {
        waiting.shift()?.();
        await settle();
      }
      shared.advance(50);
      await Promise.all(asked);
      const closing = Promise.all(replicas.map(({ cache }) => cache.close()));
      await settle();
      shared.advance(10 * SECOND);
      await closing;
      expect(shared.pending).toBe(0);
    }),
    { numRuns: 150 },
  );
});

test.each([
  { ttlMs: Number.NaN },
  { maxBytes: Number.NaN },
  { maxEntryBytes: -1 },
  { staleWhileRevalidateMs: Number.NaN },
  { maxStaleMs: -1 },
  { earlyRefresh: Number.NaN },
  { loadTimeoutMs: Number.NaN },
])("options that mean nothing are refused: %o", (options) => {
  expect(() => createResponseCache({ name: "test", ...options })).toThrow(RangeError);
});
