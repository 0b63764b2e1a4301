import { type ChildProcess, execFileSync, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { DomainError, systemClock } from "@toolplane/framework";
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Database, openDatabase } from "./database.ts";
import { isPostmasterOf, readPidFile } from "./private/postmaster.ts";
import { startPrivatePostgres } from "./private-postgres.ts";
import { silentLogger } from "./silent-logger.ts";

const isRoot = process.geteuid?.() === 0;
const ownerScript = join(import.meta.dirname, "testing-owner.ts");

/** A cluster that was created once and is copied for each test, since creating one takes most of a second. */
let template: string;
// Only its owner may enter what mkdtemp creates; when that is root, PostgreSQL runs as somebody else and has to cope.
let folder: string;
let dataDir: string;
const open: Database[] = [];
const children: ChildProcess[] = [];

beforeAll(async () => {
  template = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  const database = await openDatabase({ dataDir: template, logger: silentLogger, migrations: [] });
  await database.close();
});

afterAll(() => rm(template, { recursive: true, force: true }));

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  dataDir = join(folder, "data");
  await mkdir(dataDir, { mode: 0o700 });
  execFileSync("cp", ["-a", join(template, "postgres"), dataDir]);
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    await kill(child);
  }
  for (const database of open.splice(0)) {
    await database.close();
  }
  if (existsSync(join(dataDir, "postgres", "postmaster.pid"))) {
    const leftover = { dataDir, logger: silentLogger, clock: systemClock };
    await (await startPrivatePostgres(leftover)).stop();
  }
  await rm(folder, { recursive: true, force: true });
});

async function openPrivate(path = dataDir): Promise<Database> {
  const database = await openDatabase({ dataDir: path, logger: silentLogger, migrations: [] });
  open.push(database);
  return database;
}

/** Starts another process that owns the database; resolves when it has opened it. */
async function startOwner(task = "wait", identity?: { uid: number; gid: number }): Promise<ChildProcess> {
  const child = fork(ownerScript, [dataDir, task], {
    execArgv: ["--conditions=toolplane-source"],
    stdio: ["ignore", "ignore", "inherit", "ipc"],
    ...identity,
  });
  children.push(child);
  expect(await Promise.race([once(child, "message"), once(child, "exit")])).toEqual(["open", undefined]);
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}

async function postmasterPid(path = dataDir): Promise<number> {
  const file = await readPidFile(join(path, "postgres"));
  if (file === undefined) {
    throw new Error("PostgreSQL does not run");
  }
  return file.pid;
}

async function killPostmaster(): Promise<number> {
  const pid = await postmasterPid();
  process.kill(pid, "SIGKILL");
  return pid;
}

async function refusal(work: Promise<unknown>): Promise<DomainError["init"]> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof DomainError)) {
    throw new Error("expected a DomainError", { cause: error });
  }
  return error.init;
}

async function countRows(database: Database): Promise<number> {
  const { rows } = await sql<{ count: number }>`select count(*)::int as count from t`.execute(
    database.kysely,
  );
  return rows[0]?.count ?? -1;
}

describe("a private PostgreSQL", () => {
  it("keeps its data over a clean stop, which leaves no process and no lock file", async () => {
    const first = await openPrivate();
    expect(first.kind).toBe("private");
    await sql`create table t as select 1 as one`.execute(first.kysely);
    const pid = await postmasterPid();
    await first.close();
    expect(await isPostmasterOf(pid, join(dataDir, "postgres"))).toBe(false);
    expect(existsSync(join(dataDir, "postgres", "postmaster.pid"))).toBe(false);

    expect(await countRows(await openPrivate())).toBe(1);
  });

  it("shows nothing to other users", async () => {
    const database = await openPrivate();
    expect((await stat(dataDir)).mode & 0o077).toBe(0);
    expect((await stat(join(dataDir, "postgres"))).mode & 0o077).toBe(0);
    const { rows } = await sql<{ listen: string }>`
      select current_setting('listen_addresses') as listen`.execute(database.kysely);
    expect(rows[0]?.listen).toBe("");
  });

  it("can be closed twice", async () => {
    const database = await openPrivate();
    await Promise.all([database.close(), database.close()]);
    await database.close();
    expect(await refusal(database.ping())).toMatchObject({ code: Code.Unavailable });
  });

  it("is adopted when its owner was killed", async () => {
    const owner = await startOwner();
    const pid = await postmasterPid();
    await kill(owner);
    await openPrivate();
    expect(await postmasterPid()).toBe(pid);
  });

  it("refuses a second owner and names the first", async () => {
    const owner = await startOwner();
    const init = await refusal(openPrivate());
    expect(init).toMatchObject({
      code: Code.FailedPrecondition,
      reason: "DATA_DIRECTORY_IN_USE",
      metadata: { pid: String(owner.pid) },
    });
    expect(init.message).toContain(`${dataDir} is in use by process ${owner.pid}`);
    expect(init.message).toContain("TOOLPLANE_DATA_DIR");

    // The first one has not noticed anything.
    owner.send("close");
    await once(owner, "exit");
    await openPrivate();
  });

  it("is left to the process that has become its owner meanwhile", async () => {
    const first = await openPrivate();
    const locks = () =>
      sql<{ pid: number; granted: boolean }>`
        select pid, granted from pg_locks where locktype = 'advisory'`.execute(first.kysely);
    const opening = openPrivate();
    await expect.poll(async () => (await locks()).rows.length, { interval: 5 }).toBe(2);
    const holder = (await locks()).rows.find(({ granted }) => granted);
    await sql`select pg_terminate_backend(${holder?.pid})`.execute(first.kysely);
    const second = await opening;
    await expect
      .poll(() => refusal(first.ping()).then(({ reason }) => reason), { timeout: 10_000 })
      .toBe("DATA_DIRECTORY_IN_USE");
    await first.close();
    await second.ping();
  });

  it("has one owner when several start at once", async () => {
    await rm(dataDir, { recursive: true });
    const outcomes = await Promise.allSettled([openPrivate(), openPrivate(), openPrivate()]);
    expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected", "rejected"]);
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") {
        expect(outcome.reason).toMatchObject({ init: { reason: "DATA_DIRECTORY_IN_USE" } });
      }
    }
    await open[0]?.ping();
    expect(await readdir(dataDir)).toEqual(["postgres", "postgres.log"]);
  });

  it("comes back when it is killed, and queries fail with UNAVAILABLE until then", async () => {
    const database = await openPrivate();
    await sql`create table t as select 1 as one`.execute(database.kysely);
    const messages: string[] = [];
    let reconnects = 0;
    await database.listen(
      "news",
      (payload) => messages.push(payload),
      () => reconnects++,
    );

    const killed = await killPostmaster();
    const codes = new Set<unknown>();
    const usable = async () => {
      const count = await countRows(database).catch((error) => codes.add(error.init?.code));
      return count === 1 && (await readPidFile(join(dataDir, "postgres")))?.pid !== killed;
    };
    await expect.poll(usable, { timeout: 20_000 }).toBe(true);
    expect([...codes].filter((code) => code !== Code.Unavailable)).toEqual([]);

    await expect.poll(() => reconnects, { timeout: 20_000 }).toBe(1);
    await sql`notify news, 'after'`.execute(database.kysely);
    await expect.poll(() => messages).toEqual(["after"]);
  });

  it("is unavailable, and nothing worse, when it is killed again and again while it starts", async () => {
    const database = await openPrivate();
    const cluster = join(dataDir, "postgres");
    const codes = new Set<unknown>();
    const isUsable = () =>
      database.ping().then(
        () => true,
        ({ init }) => {
          codes.add(init?.code);
          return false;
        },
      );
    for (let kills = 0; kills < 5; kills++) {
      const isRunning = async () => {
        const file = await readPidFile(cluster);
        return file !== undefined && (await isPostmasterOf(file.pid, cluster));
      };
      await expect.poll(isRunning, { interval: 1 }).toBe(true);
      await killPostmaster();
      await isUsable();
    }
    await expect.poll(isUsable, { interval: 1 }).toBe(true);
    // Whoever is told anything else does not try again.
    expect([...codes].filter((code) => code !== Code.Unavailable)).toEqual([]);
  });

  it("is stopped cleanly even while it is being restarted", async () => {
    const database = await openPrivate();
    const pid = await killPostmaster();
    await database.close();
    expect(await isPostmasterOf(pid, join(dataDir, "postgres"))).toBe(false);
    const left = await readPidFile(join(dataDir, "postgres"));
    expect(left === undefined || !(await isPostmasterOf(left.pid, join(dataDir, "postgres")))).toBe(true);
  });

  it("starts although lock files name a process that has been given the number since", async () => {
    await (await openPrivate()).close();
    const { uid, gid } = await stat(join(dataDir, "postgres"));
    const stranger = spawn("sleep", ["60"], { stdio: "ignore", uid, gid });
    children.push(stranger);
    await once(stranger, "spawn");
    for (const name of ["postmaster.pid", ".s.PGSQL.5432.lock"]) {
      const file = join(dataDir, "postgres", name);
      await writeFile(file, `${stranger.pid}\n/elsewhere\n1\n5432\n.\n\n\nready\n`);
      await chown(file, uid, gid);
      await chmod(file, 0o600);
    }
    await openPrivate();
    expect(await postmasterPid()).not.toBe(stranger.pid);
    expect(stranger.exitCode).toBeNull();
  });

  it("clears away a cluster that was being created when its process was killed", async () => {
    await mkdir(join(dataDir, "postgres.init-killed"), { recursive: true });
    await openPrivate();
    expect(await readdir(dataDir)).toEqual(["postgres", "postgres.log"]);
  });

  it("works in a folder whose path is too long for a socket", async () => {
    const parent = join(dataDir, "long ".repeat(20));
    await mkdir(parent);
    const path = join(parent, "long, ".repeat(20));
    const database = await openPrivate(path);
    await database.ping();
    const { socketDir } = (await readPidFile(join(path, "postgres"))) ?? {};
    expect(socketDir).toMatch(/^\/.{1,90}$/);
    await database.close();
    expect(existsSync(socketDir ?? "")).toBe(false);
  });

  it("says why it does not start", async () => {
    await (await openPrivate()).close();
    await writeFile(join(dataDir, "postgres", "PG_VERSION"), "9.6\n");
    const init = await refusal(openPrivate());
    expect(init).toMatchObject({ code: Code.FailedPrecondition, reason: "DATABASE_NOT_STARTED" });
    expect(init.message).toMatch(/incompatible.*9\.6/);
    expect(init.message).toContain(join(dataDir, "postgres.log"));
  });

  it("says when the data directory cannot be used", async () => {
    const file = join(folder, "file");
    await writeFile(file, "");
    const link = join(folder, "link");
    await symlink(join(folder, "absent"), link);
    for (const [path, why] of [
      [file, "is a file and not a folder"],
      [join(file, "below"), "cannot be created or written to (ENOTDIR)"],
      [join(folder, "absent", "data"), `there is no folder ${join(folder, "absent")}`],
      [link, "is a symbolic link to what does not exist"],
    ] as const) {
      const init = await refusal(openPrivate(path));
      expect(init).toMatchObject({ code: Code.FailedPrecondition, reason: "DATA_DIRECTORY_UNUSABLE" });
      expect(init.message).toContain(`data_dir ${path} `);
      expect(init.message).toContain(why);
      expect(init.message).toContain("--data-dir, TOOLPLANE_DATA_DIR");
    }
  });

  if (process.platform === "linux") {
    it.each(["/proc/none", "/proc/none/below", "/proc/self", "/sys/none"])(
      "does not wait for ever for %s, where no folder can be",
      async (path) => {
        expect(await refusal(openPrivate(path))).toMatchObject({
          reason: "DATA_DIRECTORY_UNUSABLE",
          message: expect.stringContaining(`data_dir ${path} `),
        });
      },
    );
  }

  it("says that it is down, and keeps trying, when its files have disappeared", async () => {
    const database = await openPrivate();
    const cluster = join(dataDir, "postgres");
    await killPostmaster();
    await rename(cluster, `${cluster}-away`);
    await expect
      .poll(() => refusal(database.ping()).then(({ message }) => message), { timeout: 20_000 })
      .toContain("does not exist");
    await rename(`${cluster}-away`, cluster);
    await expect.poll(() => database.ping().then(() => "back", String), { timeout: 20_000 }).toBe("back");
  });

  if (isRoot) {
    it("says when an ordinary user may not write to the data directory", async () => {
      await chmod(folder, 0o755);
      await rm(join(dataDir, "postgres"), { recursive: true });
      await chmod(dataDir, 0o755);
      const child = fork(ownerScript, [dataDir], {
        execArgv: ["--conditions=toolplane-source"],
        stdio: ["ignore", "ignore", "pipe", "ipc"],
        uid: 12_345,
        gid: 12_345,
      });
      children.push(child);
      const text = (await child.stderr?.setEncoding("utf8").toArray())?.join("");
      expect(text).toContain(`data_dir ${dataDir} cannot be created or written to (EACCES)`);
    });

    it("runs for an ordinary user, who cannot use what belongs to another one", async () => {
      const identity = { uid: 12_345, gid: 12_345 };
      await chmod(folder, 0o755);
      await rm(join(dataDir, "postgres"), { recursive: true });
      await chown(dataDir, 65_534, 65_534);
      const owner = await startOwner("wait", { uid: 65_534, gid: 65_534 });
      const { uid } = await stat(join(dataDir, "postgres"));
      expect(uid).toBe(65_534);
      owner.send("close");
      await once(owner, "exit");

      await chmod(dataDir, 0o755);
      const other = fork(ownerScript, [dataDir], {
        execArgv: ["--conditions=toolplane-source"],
        stdio: ["ignore", "ignore", "pipe", "ipc"],
        ...identity,
      });
      children.push(other);
      const text = (await other.stderr?.setEncoding("utf8").toArray())?.join("");
      expect(text).toContain("belongs to user 65534 and this process runs as user 12345");
    });
  }
});
