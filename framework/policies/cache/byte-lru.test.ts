import fc from "fast-check";
import { expect, test } from "vitest";
import { createByteLru } from "./byte-lru.ts";

test("what was used longest ago goes first", () => {
  const evicted: string[] = [];
  const cache = createByteLru<number>({ maxBytes: 30, onEvict: (key) => evicted.push(key) });
  cache.set("a", 1, 10);
  cache.set("b", 2, 10);
  cache.set("c", 3, 10);
  expect(cache.get("a")).toBe(1);
  expect(cache.peek("b")).toBe(2);
  cache.set("d", 4, 15);
  expect(evicted).toEqual(["b", "c"]);
  expect([...cache.entries()]).toEqual([
    ["a", 1],
    ["d", 4],
  ]);
  expect([cache.size, cache.bytes, cache.evictions]).toEqual([2, 25, 2]);
});

test("what alone is too large is not kept, nor what it was to replace", () => {
  const cache = createByteLru<number>({ maxBytes: 10 });
  expect(cache.set("a", 1, 10)).toBe(true);
  expect(cache.set("a", 2, 11)).toBe(false);
  expect(cache.get("a")).toBeUndefined();
  expect([cache.size, cache.bytes, cache.evictions]).toEqual([0, 0, 0]);
});

test("values can be measured in one place", () => {
  const cache = createByteLru<string>({ maxBytes: 5, bytesOf: (text) => text.length });
  cache.set("a", "abc");
  cache.set("b", "de");
  expect(cache.bytes).toBe(5);
  cache.set("c", "f");
  expect([...cache.entries()].map(([key]) => key)).toEqual(["b", "c"]);
});

test("entries can be deleted while they are looked at", () => {
  const cache = createByteLru<number>();
  for (let index = 0; index < 10; index++) {
    cache.set(`${index}`, index, 1);
  }
  for (const [key, value] of cache.entries()) {
    if (value % 2 === 0) {
      cache.delete(key);
    }
  }
  expect([...cache.entries()].map(([, value]) => value)).toEqual([1, 3, 5, 7, 9]);
});

const operation = fc.record({
  kind: fc.constantFrom("set" as const, "set" as const, "get" as const, "delete" as const, "clear" as const),
  key: fc.nat(12).map(String),
  bytes: fc.nat(40),
});

test("it agrees with a list that is kept in order, and never holds more than it may", () => {
  fc.assert(
    fc.property(
      fc.array(operation, { maxLength: 200, size: "max" }),
      fc.nat(100),
      fc.integer({ min: 0, max: 8 }),
      (operations, maxBytes, maxEntries) => {
        const cache = createByteLru<number>({ maxBytes, maxEntries });
        let model: { key: string; value: number; bytes: number }[] = [];
        const total = () => model.reduce((sum, { bytes }) => sum + bytes, 0);
        operations.forEach(({ kind, key, bytes }, value) => {
          const found = model.find((each) => each.key === key);
          switch (kind) {
            case "set":
              model = model.filter((each) => each !== found);
              if (bytes <= maxBytes && maxEntries > 0) {
                model.push({ key, value, bytes });
              }
              while (total() > maxBytes || model.length > maxEntries) {
                model.shift();
              }
              cache.set(key, value, bytes);
              break;
            case "get":
              expect(cache.get(key)).toBe(found?.value);
              if (found) {
                model = [...model.filter((each) => each !== found), found];
              }
              break;
            case "delete":
              expect(cache.delete(key)).toBe(found !== undefined);
              model = model.filter((each) => each !== found);
              break;
            case "clear":
              cache.clear();
              model = [];
              break;
          }
          expect([...cache.entries()]).toEqual(model.map((each) => [each.key, each.value]));
          expect(cache.bytes).toBe(total());
          expect(cache.bytes).toBeLessThanOrEqual(maxBytes);
          expect(cache.size).toBe(model.length);
        });
      },
    ),
  );
});
