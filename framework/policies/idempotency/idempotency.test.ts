import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { createFakeClock, type FakeClock } from "../../test-support/fake-clock.ts";
import {
  createIdempotency,
  IdempotencyError,
  type IdempotencyEvent,
  type IdempotencyOptions,
} from "./idempotency.ts";
import { createMemoryIdempotencyStore, type MemoryIdempotencyStoreOptions } from "./memory-store.ts";
import type { IdempotencyStore, IdempotentOutcome } from "./store.ts";

const LEASE_MS = 3_000;
const DAY_MS = 86_400_000;

/** Lets everything happen that can happen without time passing. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 60; turn++) {
    await Promise.resolve();
  }
}

/** Lets time pass, with everything that happens meanwhile. */
async function pass(clock: FakeClock, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 500) {
    await settle();
    clock.advance(500);
  }
  await settle();
}

function success(text: string): IdempotentOutcome {
  return { kind: "success", bytes: Buffer.from(text) };
}

function open(
  options: Partial<IdempotencyOptions> = {},
  wrap: (store: IdempotencyStore) => IdempotencyStore = (store) => store,
  storeOptions: MemoryIdempotencyStoreOptions = {},
) {
  const clock = createFakeClock();
  const store = wrap(createMemoryIdempotencyStore({ clock, ...storeOptions }));
  const events: IdempotencyEvent[] = [];
  const create = () =>
    createIdempotency({
      store,
      clock,
      leaseMs: LEASE_MS,
      workTimeoutMs: 60_000,
      onEvent: (event) => events.push(event),
      ...options,
    });
  const begun: {
    readonly signal: AbortSignal;
    readonly end: (outcome: IdempotentOutcome) => void;
    readonly fail: (error: unknown) => void;
  }[] = [];
  const work = (signal: AbortSignal) => {
    const { promise, resolve, reject } = Promise.withResolvers<IdempotentOutcome>();
    begun.push({ signal, end: resolve, fail: reject });
    return promise;
  };
  return { clock, store, events, begun, work, create, idempotency: create() };
}

const request = { scope: "user:ada Pay", requestId: "1", fingerprint: "a" };

const reasonOf = (call: Promise<unknown>) =>
  call.then(
    () => "none",
    (error: unknown) => (error instanceof IdempotencyError ? error.reason : error),
  );

test("the same id gets the same outcome for a day, and the work is done once", async () => {
  const { idempotency, begun, work, clock } = open();
  const first = idempotency.run(request, work);
  await settle();
  begun[0]?.end(success("paid"));
  expect(await first).toEqual({ outcome: success("paid"), replayed: false });
  clock.advance(DAY_MS - 1);
  expect(await idempotency.run(request, work)).toEqual({ outcome: success("paid"), replayed: true });
  clock.advance(1);
  void idempotency.run(request, work);
  await settle();
  expect(begun).toHaveLength(2);
});

test("a definite failure is an outcome like any other", async () => {
  const { idempotency, work } = open();
  const outcome: IdempotentOutcome = { kind: "failure", bytes: Buffer.from("no such account") };
  await idempotency.run(request, async () => outcome);
  expect(await idempotency.run(request, work)).toEqual({ outcome, replayed: true });
});

test("callers who come while the work is being done wait for it, at whichever replica they are", async () => {
  const { create, begun, work, clock } = open();
  const replicas = [create(), create()];
  const calls = Array.from({ length: 20 }, (_, index) => replicas[index % 2]?.run(request, work));
  await settle();
  expect(begun).toHaveLength(1);
  begun[0]?.end(success("paid"));
  const results = await Promise.all(calls);
  expect(results.filter((result) => result?.replayed === false)).toHaveLength(1);
  expect(results.every((result) => result?.outcome.bytes.toString() === "paid")).toBe(true);
  expect(begun).toHaveLength(1);
  expect(clock.pending).toBe(0);
});

test("an id that was used for another request is refused, also while that is at work", async () => {
  const { idempotency, begun, work } = open();
  const other = { ...request, fingerprint: "b" };
  const first = idempotency.run(request, work);
  await settle();
  expect(await reasonOf(idempotency.run(other, work))).toBe("REQUEST_ID_REUSED");
  begun[0]?.end(success("paid"));
  await first;
  await expect(idempotency.run(other, work)).rejects.toThrow('the id "1" was used for another request');
  expect(begun).toHaveLength(1);
});

test("scopes have nothing to do with each other, however they are written", async () => {
  const { idempotency } = open();
  const run = (scope: string, requestId: string) =>
    idempotency.run({ scope, requestId, fingerprint: "a" }, async () => success(`${scope}|${requestId}`));
  for (const [scope, id] of [
    ["a", "bc"],
    ["ab", "c"],
    ["1:a", "bc"],
    ["", "abc"],
  ] as const) {
    expect(await run(scope, id)).toMatchObject({ replayed: false });
  }
});

test("a failure that may pass releases the id: those who wait try in turn", async () => {
  const { idempotency, begun, work } = open();
  const first = idempotency.run(request, work).catch((error: unknown) => error);
  const second = idempotency.run(request, work);
  const third = idempotency.run(request, work);
  await settle();
  begun[0]?.fail("unavailable");
  expect(await first).toBe("unavailable");
  await settle();
  expect(begun).toHaveLength(2);
  begun[1]?.end(success("paid"));
  expect((await Promise.all([second, third])).map(({ replayed }) => replayed).sort()).toEqual([false, true]);
});

test("a caller's leaving does not stop the work, and its repetition gets the outcome", async () => {
  const { idempotency, begun, work } = open();
  const leaving = new AbortController();
  const first = idempotency.run(request, work, { signal: leaving.signal }).catch((error: unknown) => error);
  await settle();
  leaving.abort("left");
  expect(await first).toBe("left");
  expect(begun[0]?.signal.aborted).toBe(false);
  const repetition = idempotency.run(request, work);
  await settle();
  begun[0]?.end(success("paid"));
  expect(await repetition).toEqual({ outcome: success("paid"), replayed: true });
});

test("a caller who leaves before the work has begun leaves nothing behind", async () => {
  const { idempotency, begun, work } = open();
  const leaving = new AbortController();
  const first = idempotency.run(request, work, { signal: leaving.signal }).catch((error: unknown) => error);
  leaving.abort("left");
  expect(await first).toBe("left");
  await settle();
  expect(begun).toHaveLength(0);
  void idempotency.run({ ...request, fingerprint: "b" }, work);
  await settle();
  expect(begun).toHaveLength(1);
});

test("one who waits and leaves does not touch the others", async () => {
  const { idempotency, begun, work, clock } = open();
  const leaving = new AbortController();
  const first = idempotency.run(request, work);
  const waiting = idempotency.run(request, work, { signal: leaving.signal }).catch((error: unknown) => error);
  const staying = idempotency.run(request, work);
  await settle();
  leaving.abort("left");
  expect(await waiting).toBe("left");
  begun[0]?.end(success("paid"));
  expect(await first).toMatchObject({ replayed: false });
  expect(await staying).toMatchObject({ replayed: true });
  expect(clock.pending).toBe(0);
});

test("a claim is renewed for as long as the work takes", async () => {
  const { create, begun, work, clock } = open();
  const [owner, other] = [create(), create()];
  const first = owner.run(request, work);
  const second = other.run(request, work);
  await pass(clock, 10 * LEASE_MS);
  expect(begun).toHaveLength(1);
  begun[0]?.end(success("paid"));
  expect(await first).toMatchObject({ replayed: false });
  expect(await second).toMatchObject({ replayed: true });
});

test("the claim of an owner that is gone expires, and who waits takes over", async () => {
  const { store, idempotency, begun, work, clock } = open();
  const key = `${request.scope.length}:${request.scope}${request.requestId}`;
  await store.claim({ key, fingerprint: "a", leaseMs: LEASE_MS, retentionMs: DAY_MS });
  const waiting = idempotency.run(request, work);
  await settle();
  for (let passed = 0; begun.length === 0 && passed < 2 * LEASE_MS; passed += 100) {
    expect(passed).toBeLessThanOrEqual(LEASE_MS);
    clock.advance(100);
    await settle();
  }
  begun[0]?.end(success("paid"));
  expect(await waiting).toMatchObject({ replayed: false });
});

test("an owner that only seemed dead is told, and what it records comes to nothing", async () => {
  let stalled = true;
  const { create, begun, work, clock, events } = open({}, (store) => ({
    ...store,
    // The network between one replica and the store stalls.
    renew: (claim, leaseMs) =>
      claim.token === "1" && stalled ? Promise.reject(new Error("stalled")) : store.renew(claim, leaseMs),
  }));
  const [zombie, successor] = [create(), create()];
  const first = zombie.run(request, work);
  await settle();
  clock.advance(LEASE_MS);
  const second = successor.run(request, work);
  await settle();
  expect(begun).toHaveLength(2);
  stalled = false;
  clock.advance(LEASE_MS / 3);
  await settle();
  expect(begun[0]?.signal.reason).toMatchObject({ reason: "LEASE_LOST" });
  // It does not heed that, and ends first.
  begun[0]?.end(success("paid by the zombie"));
  await settle();
  begun[1]?.end(success("paid by the successor"));
  expect(await second).toEqual({ outcome: success("paid by the successor"), replayed: false });
  expect(await first).toEqual({ outcome: success("paid by the successor"), replayed: true });
  expect(events.filter(({ kind }) => kind === "lease-lost")).toHaveLength(1);
});

test("an owner that only seemed dead frees nothing that its successor holds", async () => {
  const { create, begun, work, clock } = open({}, (store) => ({
    ...store,
    renew: (claim, leaseMs) =>
      claim.token === "1" ? Promise.reject(new Error("stalled")) : store.renew(claim, leaseMs),
  }));
  const [zombie, successor, third] = [create(), create(), create()];
  const first = zombie.run(request, work).catch((error: unknown) => error);
  await settle();
  clock.advance(LEASE_MS);
  const second = successor.run(request, work);
  await settle();
  begun[0]?.fail("unavailable");
  expect(await first).toBe("unavailable");
  const late = third.run(request, work);
  await settle();
  expect(begun).toHaveLength(2);
  begun[1]?.end(success("paid"));
  expect(await second).toMatchObject({ replayed: false });
  expect(await late).toMatchObject({ replayed: true });
});

test.each([
  ["waits", false],
  ["has left", true],
])(
  "a zombie whose successor has failed for now records what it has done, when its caller %s",
  async (_, leaves) => {
    const caller = new AbortController();
    const { create, begun, work, clock } = open({}, (store) => ({
      ...store,
      renew: (claim, leaseMs) =>
        claim.token === "1" ? Promise.reject(new Error("stalled")) : store.renew(claim, leaseMs),
    }));
    const [zombie, successor] = [create(), create()];
    const first = zombie.run(request, work, { signal: caller.signal }).catch((error: unknown) => error);
    await settle();
    clock.advance(LEASE_MS);
    const second = successor.run(request, work).catch((error: unknown) => error);
    await settle();
    if (leaves) {
      caller.abort("left");
    }
    begun[0]?.end(success("paid"));
    await settle();
    begun[1]?.fail("unavailable");
    expect(await second).toBe("unavailable");
    expect(await first).toEqual(leaves ? "left" : { outcome: success("paid"), replayed: false });
    await pass(clock, 1_000);
    expect(await successor.run(request, work)).toEqual({ outcome: success("paid"), replayed: true });
    expect(begun).toHaveLength(2);
  },
);

test("when the store fails before the work has begun, nothing is done", async () => {
  const down = new Error("down");
  const { idempotency, begun, work } = open({}, (store) => ({ ...store, claim: () => Promise.reject(down) }));
  const error = await idempotency.run(request, work).catch((failure: unknown) => failure);
  expect(error).toMatchObject({ reason: "STORE_UNAVAILABLE", cause: down });
  expect(begun).toHaveLength(0);
});

test("when the store fails afterwards, the caller has its outcome and it is recorded later", async () => {
  let down = true;
  const { idempotency, begun, work, clock, events } = open({}, (store) => ({
    ...store,
    complete: (...given) => (down ? Promise.reject(new Error("down")) : store.complete(...given)),
  }));
  const first = idempotency.run(request, work);
  await settle();
  begun[0]?.end(success("paid"));
  expect(await first).toMatchObject({ replayed: false });
  const repetition = idempotency.run(request, work);
  // The claim is held for as long as that takes.
  await pass(clock, 2 * LEASE_MS);
  down = false;
  await pass(clock, 10_000);
  expect(await repetition).toEqual({ outcome: success("paid"), replayed: true });
  expect(begun).toHaveLength(1);
  expect(events.map(({ kind }) => kind)).toEqual([
    "begun",
    "recording-failed",
    "waiting",
    "recorded",
    "replayed",
  ]);
  await settle();
  expect(idempotency.stats()).toMatchObject({ inFlight: 0, recordingFailed: 1, recorded: 1 });
  expect(clock.pending).toBe(0);
});

test("an outcome that is too large is told once, and never done again", async () => {
  const { idempotency, begun, work } = open({}, undefined, { maxOutcomeBytes: 3 });
  const first = idempotency.run(request, work);
  await settle();
  begun[0]?.end(success("paid"));
  expect(await first).toEqual({ outcome: success("paid"), replayed: false });
  expect(await reasonOf(idempotency.run(request, work))).toBe("OUTCOME_NOT_KEPT");
  expect(begun).toHaveLength(1);
});

test("work that takes too long is aborted; when it heeds that, the id is free", async () => {
  const { idempotency, begun, clock } = open();
  const slow = (signal: AbortSignal) =>
    new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const first = reasonOf(idempotency.run(request, slow));
  await settle();
  clock.advance(60_000);
  expect(await first).toBe("WORK_TIMEOUT");
  expect(await idempotency.run(request, async () => success("paid"))).toMatchObject({ replayed: false });
  expect(begun).toHaveLength(0);
});

test("work that takes too long and does not heed that keeps its claim until that expires", async () => {
  const { idempotency, begun, work, clock } = open();
  const first = reasonOf(idempotency.run(request, work));
  await settle();
  await pass(clock, 60_000);
  const waiting = idempotency.run(request, work);
  await settle();
  expect(begun).toHaveLength(1);
  await pass(clock, 2 * LEASE_MS);
  expect(await first).toBe("WORK_TIMEOUT");
  expect(begun).toHaveLength(2);
  begun[1]?.end(success("paid"));
  expect(await waiting).toMatchObject({ replayed: false });
  expect(clock.pending).toBe(0);
});

test("so much work may be in progress, also for callers who have left", async () => {
  const { idempotency, begun, work } = open({ maxInFlight: 2 });
  const run = (requestId: string, signal?: AbortSignal) =>
    reasonOf(idempotency.run({ ...request, requestId }, work, signal === undefined ? {} : { signal }));
  const leaving = new AbortController();
  const calls = ["1", "2"].map((id) => run(id, leaving.signal));
  await settle();
  leaving.abort("left");
  expect(await Promise.all(calls)).toEqual(["left", "left"]);
  expect(await run("3")).toBe("TOO_MANY_IN_FLIGHT");
  begun[0]?.end(success(""));
  await settle();
  const [fourth, fifth] = [run("4"), run("5")];
  await settle();
  expect(await fifth).toBe("TOO_MANY_IN_FLIGHT");
  begun[2]?.end(success(""));
  expect(await fourth).toBe("none");
});

test("closing waits for work in progress, aborts what takes too long, and refuses more", async () => {
  const { idempotency, begun, work, clock } = open();
  const quick = idempotency.run(request, work);
  const slow = reasonOf(
    idempotency.run(
      { ...request, requestId: "2" },
      (signal) =>
        new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
    ),
  );
  await settle();
  const closed = idempotency.close();
  expect(await reasonOf(idempotency.run({ ...request, requestId: "3" }, work))).toBe("CLOSED");
  begun[0]?.end(success("paid"));
  expect(await quick).toMatchObject({ replayed: false });
  clock.advance(10_000);
  expect(await slow).toBe("CLOSED");
  await closed;
  expect(clock.pending).toBe(0);
});

test("a full memory refuses rather than forgets", async () => {
  const { idempotency, work, clock } = open({}, undefined, { maxEntries: 2 });
  const run = (requestId: string) =>
    idempotency.run({ ...request, requestId }, async () => success(requestId));
  await run("1");
  await run("2");
  expect(await reasonOf(run("3"))).toBe("STORE_UNAVAILABLE");
  expect(await idempotency.run(request, work)).toMatchObject({ replayed: true });
  clock.advance(DAY_MS);
  expect(await run("3")).toMatchObject({ replayed: false });
});

test("a listener that throws breaks nothing", async () => {
  const { idempotency } = open({
    onEvent() {
      throw new Error("listener");
    },
  });
  expect(await idempotency.run(request, async () => success("paid"))).toMatchObject({ replayed: false });
});

test("whoever closes again waits for the same end", async () => {
  const { idempotency, begun, work, clock } = open();
  const call = idempotency.run(request, work);
  await settle();
  const closes = Promise.all([idempotency.close(), idempotency.close()]);
  begun[0]?.end(success("paid"));
  await call;
  await closes;
  expect(clock.pending).toBe(0);
});

test.each([
  { retentionMs: Number.NaN },
  { leaseMs: 0 },
  { workTimeoutMs: Number.NaN },
  { maxInFlight: 0 },
  { closeTimeoutMs: -1 },
])("options that mean nothing are refused: %o", (options) => {
  expect(() => open(options)).toThrow(RangeError);
});

test("a process that closes as the last thing of all records what its store did not take at once", () => {
  const script = `
    import { createIdempotency } from ${JSON.stringify(new URL("./idempotency.ts", import.meta.url).href)};
    import { createMemoryIdempotencyStore } from ${JSON.stringify(new URL("./memory-store.ts", import.meta.url).href)};
    let tries = 0;
    const memory = createMemoryIdempotencyStore();
    const complete = async (...given) => {
      if (++tries < 3) throw new Error("down");
      return memory.complete(...given);
    };
    const idempotency = createIdempotency({ store: { ...memory, complete } });
    const request = { scope: "s", requestId: "1", fingerprint: "a" };
    await idempotency.run(request, async () => ({ kind: "success", bytes: new Uint8Array(1) }));
    await idempotency.close();
    console.log("recorded", idempotency.stats().recorded);
  `;
  const node = ["--input-type=module", "--eval", script];
  expect(execFileSync(process.execPath, node, { encoding: "utf8" })).toBe("recorded 1\n");
});
