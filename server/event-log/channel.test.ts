import { expect, it } from "vitest";
import { formatChanges, parseChanges, type StreamChange } from "./channel.ts";

it("replicas understand each other's changes", () => {
  const changes: StreamChange[] = [
    { id: "1", last: 0, closed: false },
    { id: "2", last: 17, closed: true },
    { id: "3", removed: true },
  ];
  expect(formatChanges("me", changes).map(parseChanges)).toEqual([{ origin: "me", changes }]);
});

it("as many changes as there may be fit into payloads that PostgreSQL takes", () => {
  const largest = { id: String(2n ** 63n - 1n), last: Number.MAX_SAFE_INTEGER, closed: true };
  const changes = Array.from({ length: 1_000 }, () => largest);
  const payloads = formatChanges("0123456789ab", changes);
  expect(payloads.flatMap((payload) => parseChanges(payload).changes)).toEqual(changes);
  expect(Math.max(...payloads.map(({ length }) => length))).toBeLessThan(8_000);
});

it("what a later version may say is passed over", () => {
  expect(parseChanges("me 7:renamed 8:3:closed  9").changes).toEqual([{ id: "8", last: 3, closed: true }]);
});
