import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import fc from "fast-check";
import { expect, test } from "vitest";
import { silentLogger } from "../../storage/silent-logger.ts";
import { retryDelayMs } from "./retry-delay.ts";
import { statusOf } from "./statuses.ts";

const retry = { attempts: 5, initialBackoffMs: 100, maxBackoffMs: 1_000 };

function delay(
  init: { code: Code; reason?: string; retryAfterMs?: number },
  more: Partial<Parameters<typeof retryDelayMs>[1]> = {},
) {
  const error = new DomainError({ reason: "AWAY", message: "no", ...init });
  const status = statusOf(error, { runId: "run", path: "a", logger: silentLogger });
  return retryDelayMs(status, { failures: 1, retry, leftMs: Infinity, random: () => 0.5, ...more });
}

const transient = [
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.Aborted,
  Code.ResourceExhausted,
  Code.Internal,
  Code.Unknown,
];

test("only failures that may pass are followed by another attempt", () => {
  const codes = Object.values(Code).filter((code) => typeof code === "number");
  expect(codes.filter((code) => delay({ code }) !== undefined).toSorted()).toEqual(transient.toSorted());
  expect(delay({ code: Code.ResourceExhausted, reason: "TIME_BUDGET" })).toBeUndefined();
});

test("there are no more attempts than are allowed, and none that could not begin in time", () => {
  expect(delay({ code: Code.Unavailable }, { failures: 4 })).toBe(400);
  expect(delay({ code: Code.Unavailable }, { failures: 5 })).toBeUndefined();
  expect(delay({ code: Code.Unavailable }, { leftMs: 50 })).toBeUndefined();
  expect(delay({ code: Code.Unavailable }, { leftMs: 51 })).toBe(50);
  expect(delay({ code: Code.Unavailable, retryAfterMs: 7_000 })).toBe(7_000);
});

test("the wait is a part of a bound that doubles, and never shorter than was asked for", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      fc.nat(5_000),
      (failures, random, retryAfterMs) => {
        const bound = Math.min(1_000, 100 * 2 ** (failures - 1));
        const ms = delay({ code: Code.Unavailable, retryAfterMs }, { failures, random: () => random });
        expect(ms).toBeGreaterThanOrEqual(retryAfterMs);
        expect(ms).toBeLessThanOrEqual(Math.max(bound, retryAfterMs));
      },
    ),
  );
});
