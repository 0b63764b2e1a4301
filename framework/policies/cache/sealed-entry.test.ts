import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type CacheEntry, createSealer } from "./sealed-entry.ts";

const secret = randomBytes(32);
const sealer = createSealer([secret]);

const anyEntry: fc.Arbitrary<CacheEntry> = fc.record({
  value: fc.uint8Array({ maxLength: 200 }),
  tags: fc.array(fc.string({ unit: "binary" }), { maxLength: 3 }),
  loadedAt: fc.integer({ min: 0, max: 2 ** 45 }),
  ttlMs: fc.nat(),
  loadMs: fc.double({ min: 0, max: 1e6, noNaN: true }),
  tokens: fc.nat(),
  costUsd: fc.double({ min: 0, max: 100, noNaN: true }),
});
const entry = fc.sample(anyEntry, { numRuns: 1, seed: 7 })[0] as CacheEntry; // one run gives one entry

test("what was sealed is opened as it was", () => {
  fc.assert(
    fc.property(anyEntry, fc.string({ unit: "binary" }), (any, key) => {
      expect(sealer.open("c", key, sealer.seal("c", key, any))).toEqual({ kind: "intact", entry: any });
    }),
  );
});

test("no byte can be changed, none added and none taken away", () => {
  const sealed = sealer.seal("c", "k", entry);
  for (let index = 0; index < sealed.byteLength; index++) {
    const changed = Uint8Array.from(sealed);
    changed[index] = (changed[index] ?? 0) ^ 1;
    // The first bytes name the secret.
    expect(sealer.open("c", "k", changed).kind).toBe(index < 8 ? "unknown-key" : "tampered");
    expect(sealer.open("c", "k", sealed.subarray(0, index)).kind).toBe("tampered");
  }
  expect(sealer.open("c", "k", Buffer.concat([sealed, Buffer.alloc(1)])).kind).toBe("tampered");
  expect(sealer.open("c", "k", sealed).kind).toBe("intact");
});

test("an entry opens under its own key and in its own cache only", () => {
  const sealed = sealer.seal("ab", "c", entry);
  expect(sealer.open("ab", "d", sealed).kind).toBe("tampered");
  expect(sealer.open("ac", "c", sealed).kind).toBe("tampered");
  // Where name and key would run together to the same text.
  expect(sealer.open("a", "bc", sealed).kind).toBe("tampered");
  expect(sealer.open("abc", "", sealed).kind).toBe("tampered");
});

test("while a secret is replaced, both open, and the new one seals", () => {
  const next = randomBytes(32);
  const rotating = createSealer([next, secret]);
  const rotated = createSealer([next]);
  const old = sealer.seal("c", "k", entry);
  const fresh = rotating.seal("c", "k", entry);
  expect(rotating.open("c", "k", old).kind).toBe("intact");
  expect(rotated.open("c", "k", fresh).kind).toBe("intact");
  expect(rotated.open("c", "k", old).kind).toBe("unknown-key");
  expect(sealer.open("c", "k", fresh).kind).toBe("unknown-key");
});

test("what is no secret is not taken for one", () => {
  expect(() => createSealer([])).toThrow(RangeError);
  expect(() => createSealer([randomBytes(31)])).toThrow(RangeError);
});
