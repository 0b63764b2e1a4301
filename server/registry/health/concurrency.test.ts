import { setImmediate } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { systemClock } from "@toolplane/framework";
import {
  HealthStatus,
  InstanceSpecSchema,
  ServiceSpecSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { silentLogger } from "../../storage/silent-logger.ts";
import { createCatalogue } from "../catalogue.ts";
import type { Checker } from "./checker.ts";
import { createHealthChecks } from "./health-checks.ts";
import type { HealthHistoryStore } from "./history-store.ts";
import { startMonitor } from "./monitor.ts";
import { createSuspects } from "./suspects.ts";

const INSTANCES = 1_000;
const AT_ONCE = 32;

const ids = Array.from({ length: INSTANCES }, (_, index) => `instance-${index}`);

function catalogueOfMany() {
  const key = { name: "many", environment: "default", version: "1.0.0" };
  const time = new Date(0);
  const catalogue = createCatalogue();
  const spec = toBinary(InstanceSpecSchema, create(InstanceSpecSchema, { endpoint: "http://127.0.0.1:1" }));
  const instances = ids.map((id) => ({
    ...key,
    id,
    spec,
    health: HealthStatus.UNKNOWN,
    healthMessage: "",
    healthCheckTime: undefined,
    registerTime: time,
  }));
  const service = {
    ...key,
    spec: toBinary(ServiceSpecSchema, create(ServiceSpecSchema, { name: key.name })),
    toolSet: undefined,
    schemaDigest: "",
    definition: undefined,
    problems: [],
    createTime: time,
    updateTime: time,
    discoverTime: undefined,
    revision: 1,
    instances,
  };
  catalogue.apply(
    { revision: 1, complete: true, prunedRevision: 0, services: [service], removed: [] },
    new Map(),
  );
  return catalogue;
}

/** Checks that take a turn of the event loop, and how many of them there were at once. */
function countingChecker() {
  const checked: string[] = [];
  let running = 0;
  let most = 0;
  const checker: Checker = {
    async check({ name, environment, version }, { id }) {
      most = Math.max(most, ++running);
      await setImmediate();
      running--;
      checked.push(id);
      const found = { status: HealthStatus.HEALTHY, message: "", latencyMs: 0, time: new Date(0) };
      return { name, environment, version, instanceId: id, ...found };
    },
    async follow() {},
    async flush() {},
    writers: () => [],
  };
  return { checker, checked, most: () => most };
}

const parts = { clock: systemClock, logger: silentLogger };

test("of a thousand instances that are due together, some are checked at a time", async () => {
  const { checker, checked, most } = countingChecker();
  const catalogue = catalogueOfMany();
  const monitor = startMonitor({ ...parts, catalogue, checker, random: () => 0.5, intervalMs: 60_000 });
  onTestFinished(() => monitor.close());
  await expect.poll(() => checked.length).toBe(INSTANCES);
  expect(new Set(checked)).toEqual(new Set(ids));
  expect(most()).toBe(AT_ONCE);
});

test("of a thousand instances that someone asks for, some are checked at a time", async () => {
  const { checker, most } = countingChecker();
  // Nothing is asked of the past.
  const health = createHealthChecks(catalogueOfMany(), checker, {} as HealthHistoryStore);
  const records = await health.check(undefined, new AbortController().signal);
  expect(records.map(({ instanceId }) => instanceId)).toEqual(ids);
  expect(most()).toBe(AT_ONCE);
});

test("of a thousand instances that calls could not reach, some are checked at a time", async () => {
  const { checker, checked, most } = countingChecker();
  const suspects = createSuspects({ ...parts, catalogue: catalogueOfMany(), checker });
  onTestFinished(() => suspects.close());
  for (const id of ids) {
    suspects.report(id);
  }
  await expect.poll(() => checked.length).toBe(INSTANCES);
  expect(most()).toBe(AT_ONCE);
});
