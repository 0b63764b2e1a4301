import { create } from "@bufbuild/protobuf";
import {
  ServiceFilterSchema,
  type WatchServicesResponse,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { createCatalogue } from "./catalogue.ts";
import type { Registry } from "./registry.ts";
import { emptyRegistry, openRegistry } from "./test-support/open-registry.ts";
import { described, instance } from "./test-support/specs.ts";
import { createWatchers } from "./watch.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

/** What an event says, in one word and a name. */
function summary({ event }: WatchServicesResponse): string {
  switch (event.case) {
    case "updated":
      return `updated ${event.value.name} ${event.value.instances.length}`;
    case "removed":
      return `removed ${event.value.name}`;
    default:
      return event.case ?? "nothing";
  }
}

/** Reads a watch one event at a time, until the test is over. */
function startWatch(registry: Pick<Registry, "watch">, filter = {}, resume?: number) {
  const leave = new AbortController();
  onTestFinished(() => leave.abort());
  const events = registry
    .watch(create(ServiceFilterSchema, filter), resume, leave.signal)
    [Symbol.asyncIterator]();
  let revision = 0;
  return {
    leave,
    /** The next events up to a synced mark. */
    async group(): Promise<string[]> {
      const found: string[] = [];
      for (;;) {
        const { value, done } = await events.next();
        if (done) {
          return [...found, "end"];
        }
        if (value.event.case === "synced") {
          revision = Number(value.event.value.revision);
          return found;
        }
        found.push(summary(value));
      }
    },
    next: () => events.next(),
    get revision() {
      return revision;
    },
  };
}

function register(registry: Registry, name: string, port: number) {
  return registry.register(described({ name }), instance({ endpoint: `localhost:${port}` }));
}

test("a watcher is told what there is, then every change", async () => {
  const registry = await emptyRegistry(database);
  await register(registry, "a", 1);
  const watch = startWatch(registry);
  expect(await watch.group()).toEqual(["updated a 1"]);
  const { instanceId } = await register(registry, "b", 2);
  expect(await watch.group()).toEqual(["updated b 1"]);
  await register(registry, "a", 3);
  expect(await watch.group()).toEqual(["updated a 2"]);
  await registry.deregister({ instanceId });
  expect(await watch.group()).toEqual(["removed b"]);
});

test("changes that a slow watcher has not read are merged, and none of the last states is lost", async () => {
  const registry = await emptyRegistry(database);
  const watch = startWatch(registry);
  await watch.group();
  for (let port = 1; port <= 5; port++) {
    await register(registry, "a", port);
    await register(registry, "b", port);
  }
  await registry.deregister({ service: { name: "b", environment: "", version: "" } });
  // b came and went unseen.
  expect(await watch.group()).toEqual(["updated a 5"]);
});

test("a watcher that comes back is told what it has missed, also after a restart of the server", async () => {
  const registry = await emptyRegistry(database);
  await register(registry, "a", 1);
  await register(registry, "b", 2);
  const watch = startWatch(registry);
  await watch.group();
  watch.leave.abort();
  await register(registry, "c", 3);
  await registry.deregister({ service: { name: "a", environment: "", version: "" } });

  const missed = ["removed a", "updated c 1"];
  expect((await startWatch(registry, {}, watch.revision).group()).sort()).toEqual(missed);
  await registry.close();
  const restarted = await openRegistry(database);
  expect((await startWatch(restarted, {}, watch.revision).group()).sort()).toEqual(missed);
});

test("a watcher that comes back too late, or from elsewhere, starts anew", async () => {
  const registry = await emptyRegistry(database);
  await register(registry, "a", 1);
  expect(await startWatch(registry, {}, 1_000_000).group()).toEqual(["reset", "updated a 1"]);
  await registry.close();
  await database.kysely.updateTable("registry_head").set({ pruned_revision: 5 }).execute();
  await database.kysely.deleteFrom("registry_changes").where("revision", "<=", "5").execute();
  const restarted = await openRegistry(database);
  expect(await startWatch(restarted, {}, 1).group()).toEqual(["reset", "updated a 1"]);
});

test("a service that no longer matches the filter is removed for its watcher", async () => {
  const registry = await emptyRegistry(database);
  await registry.register(described({ name: "a", tags: ["x"] }), instance({ endpoint: "localhost:1" }));
  await register(registry, "other", 2);
  const watch = startWatch(registry, { tags: ["x"] });
  expect(await watch.group()).toEqual(["updated a 1"]);
  await registry.register(described({ name: "a", tags: ["y"] }), instance({ endpoint: "localhost:1" }));
  expect(await watch.group()).toEqual(["removed a"]);
});

test("a filtered watcher that comes back is not told of services that it cannot have known", async () => {
  const registry = await emptyRegistry(database);
  await register(registry, "mine", 1);
  const watch = startWatch(registry, { name: "mine" });
  await watch.group();
  watch.leave.abort();
  await register(registry, "other", 2);

  const resumed = startWatch(registry, { name: "mine" }, watch.revision);
  expect(await resumed.group()).toEqual([]);
  await register(registry, "other", 3);
  await register(registry, "mine", 4);
  await expect.poll(() => resumed.group()).toEqual(["updated mine 2"]);
  await registry.deregister({ service: { name: "mine", environment: "", version: "" } });
  expect(await resumed.group()).toEqual(["removed mine"]);
});

test("changes made through another replica arrive too", async () => {
  const [one, two] = [await emptyRegistry(database), await openRegistry(database)];
  const watch = startWatch(two);
  await watch.group();
  await register(one, "a", 1);
  expect(await watch.group()).toEqual(["updated a 1"]);
});

test("a watch ends with its caller and with the registry", async () => {
  const registry = await emptyRegistry(database);
  const [left, closed] = [startWatch(registry), startWatch(registry)];
  await Promise.all([left.group(), closed.group()]);
  const ends = [left.next(), closed.next()];
  left.leave.abort();
  await registry.close();
  expect(await Promise.all(ends)).toMatchObject([{ done: true }, { done: true }]);
});

test("a quiet watch says every 15 s that it is alive", async () => {
  const clock = createFakeClock();
  const watchers = createWatchers(createCatalogue(), clock);
  onTestFinished(() => watchers.close());
  const watch = startWatch(watchers);
  await watch.group();
  for (const _ of [1, 2]) {
    const next = watch.next();
    clock.advance(15_000);
    expect((await next).value?.event).toMatchObject({ case: "heartbeat" });
  }
});
