import { expect, onTestFinished, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { createKey, hashSecret } from "./key-format.ts";
import { openKeyRing } from "./key-ring.ts";
import { createKeyStore, type KeyStore, type NewKey } from "./store.ts";

/** A ring on a database of its own whose clock stands still, with a count of how often the keys were read. */
async function setUp() {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const clock = createFakeClock();
  const inner = createKeyStore(database);
  let reads = 0;
  let hanging: Promise<void> | undefined;
  const store: KeyStore = {
    ...inner,
    async loadEndingAfter(time) {
      reads += 1;
      await hanging;
      return await inner.loadEndingAfter(time);
    },
  };
  const ring = await openKeyRing({ database, store, clock, logger: silentLogger });
  onTestFinished(() => ring.close());
  /** Lets reads take until what is returned is called. */
  function hang(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    hanging = promise;
    return () => {
      hanging = undefined;
      resolve();
    };
  }
  return { ring, store, clock, hang, reads: () => reads };
}

function aKey(): NewKey {
  const { id, secret } = createKey();
  return {
    id,
    name: "ci",
    role: "caller",
    secretHash: hashSecret(secret),
    createdBy: "anonymous",
    createTime: new Date(),
    expireTime: undefined,
  };
}

test("guesses have the database read once a second, however many there are", async () => {
  const { ring, clock, reads } = await setUp();
  expect(reads()).toBe(1);
  await Promise.all(Array.from({ length: 1_000 }, () => ring.missed()));
  expect(reads()).toBe(2);
  for (let guess = 0; guess < 1_000; guess++) {
    await ring.missed();
  }
  clock.advance(999);
  await ring.missed();
  expect(reads()).toBe(2);
  clock.advance(1);
  await ring.missed();
  expect(reads()).toBe(3);
});

test("nobody whose key is not known waits for more than a second, and nobody for a read that is late", async () => {
  const { ring, clock, hang, reads } = await setUp();
  const release = hang();
  const waiting = Promise.allSettled([ring.missed(), ring.missed()]);
  clock.advance(1_000);
  const late = { status: "rejected", reason: { init: { reason: "DATABASE_UNAVAILABLE" } } };
  expect(await waiting).toMatchObject([late, late]);
  clock.advance(1_000);
  expect(await Promise.allSettled([ring.missed()])).toMatchObject([late]);
  expect(reads()).toBe(2);
  release();
  await expect
    .poll(() =>
      ring.missed().then(
        () => "known",
        () => "late",
      ),
    )
    .toBe("known");
});

test("changes at the same time are read together, and none of them is missed", async () => {
  const { ring, store, reads } = await setUp();
  const keys = Array.from({ length: 50 }, aKey);
  await Promise.all(keys.map((key) => store.change((writes) => writes.insert(key))));
  await expect.poll(() => keys.every(({ id }) => ring.get(id) !== undefined)).toBe(true);
  expect(reads()).toBeLessThanOrEqual(51);
});

test("what a pull was asked for after, it has read", async () => {
  const { ring, store } = await setUp();
  for (let round = 0; round < 30; round++) {
    const key = aKey();
    const earlier = ring.pull();
    await store.change((writes) => writes.insert(key));
    await ring.pull();
    expect(ring.get(key.id)).toBeDefined();
    await earlier;
  }
});

test("without any notification the keys are read every 5 s", async () => {
  const { clock, reads } = await setUp();
  const before = reads();
  clock.advance(4_999);
  expect(reads()).toBe(before);
  clock.advance(1);
  expect(reads()).toBe(before + 1);
});

test("keys that have ended are known for 30 days, to say so", async () => {
  const { ring, store, clock } = await setUp();
  const day = 86_400_000;
  const [recent, old] = [aKey(), aKey()];
  await store.change(async (writes) => {
    await writes.insert({ ...recent, expireTime: new Date(clock.now() - 29 * day) });
    await writes.insert({ ...old, expireTime: new Date(clock.now() + day) });
    await writes.setRevokeTime(old.id, new Date(clock.now() - 31 * day));
  });
  await ring.pull();
  expect(ring.get(recent.id)).toBeDefined();
  expect(ring.get(old.id)).toBeUndefined();
});
