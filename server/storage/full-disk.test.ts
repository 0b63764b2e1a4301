import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { sql } from "kysely";
import { afterAll, describe, expect, it } from "vitest";
import { openDatabase } from "./database.ts";
import { silentLogger } from "./silent-logger.ts";

const folder = mkdtempSync(join(tmpdir(), "toolplane-test-"));
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

describe.runIf(mounted)("a private PostgreSQL whose disk is full", () => {
  it("says so, keeps what it acknowledged, and goes on when space is freed", {
    timeout: 60_000,
  }, async () => {
    const database = await openDatabase({
      dataDir: join(folder, "data"),
      logger: silentLogger,
      migrations: [],
    });
    const { kysely } = database;
    await sql`create table t (id int, filler text)`.execute(kysely);
    const ballast = join(folder, "ballast");
    await writeFile(ballast, Buffer.alloc(30 * 1024 * 1024));

    // Random text, which cannot be compressed, until nothing more fits.
    let acknowledged = 0;
    const insert = () =>
      sql`insert into t select ${acknowledged}, string_agg(md5(random()::text), '')
          from generate_series(1, 8000)`.execute(kysely);
    const failure = await (async () => {
      for (; acknowledged < 1_000; acknowledged++) {
        await insert();
      }
      throw new Error("the disk never filled");
    })().catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(DomainError);
    expect(failure).toMatchObject({ init: { code: Code.ResourceExhausted, reason: "DISK_FULL" } });
    expect(acknowledged).toBeGreaterThan(0);

    await rm(ballast);
    await expect
      .poll(() => insert().then(() => "stored", String), { timeout: 30_000, interval: 50 })
      .toBe("stored");
    const { rows } = await sql<{ count: number }>`select count(distinct id)::int as count from t`.execute(
      kysely,
    );
    expect(rows[0]?.count).toBe(acknowledged + 1);
    await database.close();
  });
});
