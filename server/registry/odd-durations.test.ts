import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema } from "@bufbuild/protobuf/wkt";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { milliseconds } from "../config/durations.ts";
import type { Database } from "../storage/database.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { createHealthHistoryStore } from "./health/history-store.ts";
import { keepHouse } from "./housekeeping.ts";
import { createLeaseStore } from "./lease-store.ts";
import { completeRegistration } from "./registration.ts";
import { emptyRegistry } from "./test-support/open-registry.ts";
import { described, instance } from "./test-support/specs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

/** Durations of 1 s to an hour, to the nanosecond. */
const durations = fc
  .record({ seconds: fc.bigInt(1n, 3_599n), nanos: fc.integer({ min: 0, max: 999_999_999 }) })
  .map((init): Duration => create(DurationSchema, init));

test("a lease lasts the asked time, to the next whole millisecond", () => {
  fc.assert(
    fc.property(durations, (leaseTtl) => {
      const asked = milliseconds(leaseTtl, 0);
      const { leaseTtlMs = 0, instance: kept } = completeRegistration(
        described({ name: "s" }),
        instance({ endpoint: "localhost:1", leaseTtl }),
        30_000,
      );
      expect(leaseTtlMs).toBe(Math.ceil(asked));
      expect(milliseconds(kept.leaseTtl, 0)).toBe(leaseTtlMs);
    }),
  );
});

test("instances register, renew and expire whatever fractions their times have", async () => {
  const registry = await emptyRegistry(database, { defaultLeaseTtlMs: 30_000.2 });
  const unnamed = await registry.register(
    described({ name: "unnamed" }),
    instance({ endpoint: "localhost:1" }),
  );
  expect(unnamed.leaseTtlMs).toBe(30_001);
  await fc.assert(
    fc.asyncProperty(durations, durations, durations, async (leaseTtl, interval, timeout) => {
      const check = { kind: { case: "tcp", value: {} }, interval, timeout } as const;
      const { instanceId, leaseTtlMs } = await registry.register(
        described({ name: "s", healthCheck: check }),
        instance({ endpoint: "127.0.0.1:1", leaseTtl }),
      );
      expect(await registry.renew(instanceId)).toBe(leaseTtlMs);
    }),
    { numRuns: 20, examples: [[duration(1n, 200_000), duration(1n, 1), duration(0n, 1)]] },
  );
  const leases = createLeaseStore(database);
  await leases.renewAll();
  expect(await leases.expire()).toEqual([]);
});

test("results of checks that took odd times are kept and forgotten", async () => {
  const history = createHealthHistoryStore(database);
  const latencies = [0, 0.0002, 0.2, 1.23456789, 60_000.4321, 1e9];
  await history.append(
    latencies.map((latencyMs) => ({
      name: "odd",
      environment: "default",
      version: "1",
      instanceId: "odd",
      status: HealthStatus.HEALTHY,
      message: "",
      latencyMs,
      time: new Date(0),
    })),
  );
  const kept = await history.list({ name: "odd" }, 10, undefined);
  expect(kept.map(({ latencyMs }) => latencyMs).reverse()).toEqual([
    0, 0, 0.2, 1.235, 60_000.432, 2_147_483.647,
  ]);
  await keepHouse({ database, history, logger: silentLogger, healthRetentionMs: 60_000.2 });
  expect(await history.list({ name: "odd" }, 10, undefined)).toEqual([]);
});

function duration(seconds: bigint, nanos: number): Duration {
  return create(DurationSchema, { seconds, nanos });
}
