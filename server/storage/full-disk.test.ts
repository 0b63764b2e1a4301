import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { rm, statfs, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { sql } from "kysely";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Database, openDatabase } from "./database.ts";
import { silentLogger } from "./silent-logger.ts";

const folder = mkdtempSync(join(tmpdir(), "toolplane-test-"));
const ballast = join(folder, "ballast");
const mounted = mountSmallDisk();

afterAll(() => {
  if (mounted) {
    execFileSync("umount", [folder]);
  }
  rmSync(folder, { recursive: true, force: true });
});

/** Only root may mount, and only where the system lets it. */
function mountSmallDisk(): boolean {
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=96m", "tmpfs", folder], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** Leaves a number of bytes of the disk free. */
async function fillDisk(free: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  await writeFile(ballast, Buffer.alloc(Math.max(bavail * bsize - free, 0)));
}

async function repeatUntilFailure(work: () => Promise<unknown>): Promise<{ done: number; failure: unknown }> {
  for (let done = 0; done < 100_000; done++) {
    try {
      await work();
    } catch (failure) {
      return { done, failure };
    }
  }
  throw new Error("the disk never filled");
}

if (mounted) {
  describe("a private PostgreSQL whose disk is full", () => {
    let database: Database;

    beforeEach(async () => {
      const dataDir = join(folder, "data");
      database = await openDatabase({ dataDir, logger: silentLogger, migrations: [] });
    });

    afterEach(async () => {
      await database.close();
      await rm(join(folder, "data"), { recursive: true });
    });

    it("says so when a table cannot grow, keeps what it acknowledged, and goes on when space is freed", async () => {
      const { kysely } = database;
      await sql`create table t (id serial, filler text)`.execute(kysely);
      await fillDisk(20 * 1024 * 1024);
      // Random text, which cannot be compressed.
      const insert = () =>
        sql`insert into t (filler) select string_agg(md5(random()::text), '') from generate_series(1, 8000)`.execute(
          kysely,
        );
      const { done, failure } = await repeatUntilFailure(insert);
      expect(failure).toMatchObject({ init: { code: Code.ResourceExhausted, reason: "DISK_FULL" } });
      expect(done).toBeGreaterThan(0);

      await rm(ballast);
      await expect.poll(() => insert().then(() => "stored", String), { timeout: 30_000 }).toBe("stored");
      const { rows } = await sql<{ count: number }>`select count(*)::int as count from t`.execute(kysely);
      expect(rows).toEqual([{ count: done + 1 }]);
    });

    it("comes back by itself although the server cannot run without space for its log", async () => {
      const { kysely } = database;
      await sql`create table t (n int)`.execute(kysely);
      await sql`insert into t values (0)`.execute(kysely);
      await fillDisk(0);
      // The row stays within its page; only the log of changes grows. When it cannot, PostgreSQL ends itself.
      const raise = () =>
        sql`do $$ begin for i in 1..1000 loop update t set n = n + 1; end loop; end $$`.execute(kysely);
      const { done, failure } = await repeatUntilFailure(raise);
      expect(failure).toMatchObject({ init: { retryAfterMs: expect.any(Number) } });
      const outage = () =>
        raise().then(
          () => "none",
          (error: unknown) => (error instanceof DomainError ? error.init.reason : String(error)),
        );
      await expect.poll(outage, { timeout: 30_000 }).toBe("DISK_FULL");

      await rm(ballast);
      await expect.poll(() => database.ping().then(() => "back", String), { timeout: 30_000 }).toBe("back");
      const { rows } = await sql<{ n: number }>`select n from t`.execute(kysely);
      // The change that failed last may have been recorded before its acknowledgement was lost.
      expect(rows[0]?.n).toBeGreaterThanOrEqual(done * 1000);
    });
  });
}
