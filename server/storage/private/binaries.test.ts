import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findBinaries, reachableBinaries } from "./binaries.ts";

const nobody = { uid: 65_534, gid: 65_534 };
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "toolplane-test-"));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Something like an installation of PostgreSQL that only its owner can read. */
async function install(): Promise<{ root: string; initdb: string; postgres: string }> {
  const root = join(folder, "package", "native");
  await mkdir(join(root, "bin"), { recursive: true, mode: 0o700 });
  await mkdir(join(root, "lib"), { mode: 0o700 });
  await writeFile(join(folder, "package", "package.json"), '{"version":"18.0.0"}');
  await writeFile(join(root, "bin", "postgres"), "program", { mode: 0o700 });
  await writeFile(join(root, "lib", "libpq.so.5"), "library", { mode: 0o600 });
  await writeFile(join(root, "lib", "libpq.a"), "static library");
  await symlink("libpq.so.5", join(root, "lib", "libpq.so"));
  return { root, initdb: join(root, "bin", "initdb"), postgres: join(root, "bin", "postgres") };
}

describe("PostgreSQL's programs", () => {
  it("are found for this platform", async () => {
    expect((await stat(findBinaries().postgres)).mode & 0o100).not.toBe(0);
  });

  it("are missing on others, which is said with what to do", () => {
    expect(() => findBinaries("plan9", "mips")).toThrow(/plan9-mips; set TOOLPLANE_DATABASE_URL/);
  });

  it("are used where they are when we run them ourselves", async () => {
    const installed = await install();
    expect(await reachableBinaries(installed, undefined, join(folder, "system"))).toBe(installed);
  });

  it("are copied for a user who cannot reach them, once even when several ask", async () => {
    await chmod(folder, 0o755);
    const installed = await install();
    await chmod(join(folder, "package"), 0o700);
    const system = join(folder, "system");
    const ask = () => reachableBinaries(installed, nobody, system);
    const copies = await Promise.all([ask(), ask(), ask()]);
    const again = await ask();
    expect(new Set([...copies, again].map(({ postgres }) => postgres)).size).toBe(1);
    expect(await readdir(system)).toEqual(["postgresql-18.0.0"]);
    expect(await readFile(again.postgres, "utf8")).toBe("program");
    expect((await stat(again.postgres)).mode & 0o777).toBe(0o755);
    expect((await readdir(join(again.root, "lib"))).sort()).toEqual(["libpq.so", "libpq.so.5"]);
    expect((await stat(join(again.root, "lib", "libpq.so"))).mode & 0o777).toBe(0o644);
  });

  it("are said to be out of reach when they cannot be copied to where the user reaches them", async () => {
    const installed = await install();
    const unreachable = reachableBinaries(installed, nobody, join(folder, "system"));
    await expect(unreachable).rejects.toMatchObject({ init: { code: Code.FailedPrecondition } });
    await expect(unreachable).rejects.toThrow(/TOOLPLANE_DATABASE_URL/);
  });
});
