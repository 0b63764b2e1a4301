import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { expect, it, onTestFinished } from "vitest";
import { openDatabase } from "./database.ts";
import { readPidFile } from "./private/postmaster.ts";
import { silentLogger } from "./silent-logger.ts";

it("no acknowledged row is lost when the owner, and now and then the server, is killed 20 times", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  onTestFinished(() => rm(dataDir, { recursive: true, force: true }));
  // Compiling the same sources 20 times would take most of the time.
  const cache = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  onTestFinished(() => rm(cache, { recursive: true }));
  const acknowledged: number[] = [];
  for (let round = 0; round < 20; round++) {
    const owner = fork(join(import.meta.dirname, "testing-owner.ts"), [dataDir, "insert"], {
      execArgv: ["--conditions=toolplane-source"],
      env: { ...process.env, NODE_COMPILE_CACHE: cache },
    });
    owner.on("message", (id) => id === "open" || acknowledged.push(Number(id)));
    const enough = acknowledged.length + 5;
    await expect
      .poll(() => acknowledged.length, { timeout: 30_000, interval: 5 })
      .toBeGreaterThanOrEqual(enough);
    if (round % 4 === 3) {
      const server = await readPidFile(join(dataDir, "postgres"));
      // Never without a number: 0 would be this process and all of its group.
      if (server === undefined) {
        throw new Error("a server that acknowledged a row has no pid file");
      }
      process.kill(server.pid, "SIGKILL");
    }
    owner.kill("SIGKILL");
    await once(owner, "exit");
  }

  const database = await openDatabase({ dataDir, logger: silentLogger, migrations: [] });
  onTestFinished(() => database.close());
  const { rows } = await sql<{ id: string }>`select id from acknowledged`.execute(database.kysely);
  const stored = new Set(rows.map(({ id }) => Number(id)));
  expect(acknowledged.filter((id) => !stored.has(id))).toEqual([]);
});
