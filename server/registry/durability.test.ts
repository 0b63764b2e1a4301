import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import { createTestDatabaseUrl, openTestDatabase } from "../storage/testing.ts";
import { openRegistry } from "./test-support/open-registry.ts";

const ROUNDS = 5;
const REPLICAS = 4;

/** Runs a replica, kills it once it has acknowledged so many registrations, and returns those that it did acknowledge. */
async function runAndKill(
  { url, cache }: { url: string; cache: string },
  prefix: string,
  registrations: number,
): Promise<string[]> {
  const fixture = fileURLToPath(new URL("./test-support/replica.ts", import.meta.url));
  const child = spawn(process.execPath, ["--conditions=toolplane-source", fixture, url, prefix], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, NODE_COMPILE_CACHE: cache },
  });
  const exit = once(child, "exit");
  const acknowledged: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    acknowledged.push(line);
    if (acknowledged.length === registrations) {
      child.kill("SIGKILL");
    }
  }
  expect(await exit).toEqual([null, "SIGKILL"]);
  return acknowledged;
}

test("replicas that are killed 20 times lose no acknowledged registration", async () => {
  const url = await createTestDatabaseUrl();
  // Compiling the same sources 20 times would take most of the time.
  const cache = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  onTestFinished(() => rm(cache, { recursive: true }));
  const acknowledged: string[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const replicas = Array.from({ length: REPLICAS }, (_, replica) =>
      runAndKill({ url, cache }, `service-${round}-${replica}`, 1 + ((round * REPLICAS + replica) % 7)),
    );
    acknowledged.push(...(await Promise.all(replicas)).flat());
  }

  const database = await openTestDatabase({ url });
  const registry = await openRegistry(database);
  const { items } = registry.listServices({ filter: undefined, pageSize: 1_000, pageToken: "" });
  const registered = new Map(items.map(({ name, toolCount }) => [name, toolCount]));
  expect(acknowledged.length).toBeGreaterThanOrEqual(ROUNDS * REPLICAS);
  expect(acknowledged.filter((name) => registered.get(name) !== 1)).toEqual([]);
  await registry.close();
  await database.close();
});
