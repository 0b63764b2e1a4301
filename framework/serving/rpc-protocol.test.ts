import fc from "fast-check";
import { expect, test } from "vitest";
import { clampTimeout, rpcProtocol } from "./rpc-protocol.ts";

test.each([
  ["POST", "application/grpc", "grpc"],
  ["POST", "application/grpc+json", "grpc"],
  ["POST", "application/grpc-web+proto", "grpc-web"],
  ["POST", "application/connect+json", "connect-stream"],
  ["POST", "application/json; charset=utf-8", "connect-unary"],
  ["POST", "application/proto", "connect-unary"],
  ["GET", undefined, "connect-unary"],
  ["POST", "text/html", "http"],
])("%s with %s speaks %s", (method, type, expected) => {
  expect(rpcProtocol(method, type === undefined ? {} : { "content-type": type })).toBe(expected);
});

const unitMs = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

function millisecondsOf(header: Headers): number {
  const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(header.get("grpc-timeout") ?? "") ?? [];
  return Number(digits) * unitMs[unit as keyof typeof unitMs];
}

test("a gRPC timeout is never above the limit, never longer than eight digits, and kept when it is below", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 99_999_999 }),
      fc.constantFrom("H", "M", "S", "m", "u", "n"),
      fc.integer({ min: 1, max: 2 ** 31 - 1 }),
      (digits, unit, maxMs) => {
        const header = new Headers({ "grpc-timeout": `${digits}${unit}` });
        const given = millisecondsOf(header);
        clampTimeout(header, "grpc", maxMs);
        const clamped = millisecondsOf(header);
        expect(clamped).toBeLessThanOrEqual(maxMs);
        if (given <= maxMs) {
          expect(clamped).toBe(given);
        } else {
          expect(clamped).toBeGreaterThan(maxMs - 1_000);
        }
      },
    ),
  );
});

test("a Connect timeout is never above the limit", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 9_999_999_999 }),
      fc.integer({ min: 1, max: 2 ** 31 - 1 }),
      (given, maxMs) => {
        const header = new Headers({ "connect-timeout-ms": String(given) });
        clampTimeout(header, "connect-unary", maxMs);
        expect(Number(header.get("connect-timeout-ms"))).toBe(Math.min(given, maxMs));
      },
    ),
  );
});
