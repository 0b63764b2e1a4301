import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { DomainError, systemClock } from "@toolplane/framework";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openDatabase } from "./database.ts";
import { type PrivatePostgres, startPrivatePostgres } from "./private-postgres.ts";
import { silentLogger } from "./silent-logger.ts";
import { databaseUrl } from "./testing.ts";

let folder: string;
let postgres: PrivatePostgres;
/** Accepts connections and says nothing. */
let mute: Server;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  postgres = await startPrivatePostgres({ dataDir: folder, logger: silentLogger, clock: systemClock });
  const client = new pg.Client({ ...postgres.address });
  await client.connect();
  await client.query("create role guarded login password 's3cret-word'");
  await client.query("create role barred login");
  await client.query("revoke connect on database postgres from public");
  const rules = [
    "local all guarded scram-sha-256",
    "local all toolplane trust",
    "local all barred trust",
    "local all all reject",
  ];
  await writeFile(join(folder, "postgres", "pg_hba.conf"), `${rules.join("\n")}\n`);
  await client.query("select pg_reload_conf()");
  await client.end();
  mute = createServer().listen(0, "127.0.0.1");
  await once(mute, "listening");
});

afterAll(async () => {
  await postgres.stop();
  await rm(folder, { recursive: true, force: true });
  mute.close();
});

async function refusal(url: string): Promise<DomainError["init"]> {
  const error = await openDatabase({ url, dataDir: folder, logger: silentLogger, migrations: [] }).then(
    async (database) => {
      await database.close();
      return new Error("it was opened");
    },
    (reason: unknown) => reason,
  );
  if (!(error instanceof DomainError)) {
    throw new Error("expected a DomainError", { cause: error });
  }
  expect(error.init).toMatchObject({
    code: Code.FailedPrecondition,
    preconditions: [{ type: "CONFIGURATION", subject: "TOOLPLANE_DATABASE_URL" }],
  });
  expect(error.message).toContain("TOOLPLANE_DATABASE_URL");
  expect(error.message).not.toContain("s3cret");
  return error.init;
}

function withUser(user: string, password: string, database = "postgres"): string {
  const query = new URLSearchParams({ host: postgres.address.host, user, password });
  return `postgres:///${database}?${query}`;
}

describe("a database URL", () => {
  it("leads to a shared database", async () => {
    const url = databaseUrl(postgres.address, "postgres");
    const database = await openDatabase({ url, dataDir: folder, logger: silentLogger, migrations: [] });
    expect(database.kind).toBe("shared");
    await database.ping();
    await database.close();
  });

  it.each(["", "localhost", "mysql://root:s3cret@localhost/x", "postgres://me:s3cret@[nonsense/x"])(
    "is refused when it is %j",
    async (url) => {
      expect(await refusal(url)).toMatchObject({ reason: "DATABASE_URL_INVALID" });
    },
  );

  it("is refused when its certificate cannot be read", async () => {
    const init = await refusal("postgres://me:s3cret@127.0.0.1/x?sslrootcert=/does/not/exist");
    expect(init).toMatchObject({ reason: "DATABASE_URL_INVALID" });
    expect(init.message).toContain("certificate");
  });

  it("is refused when nothing listens", async () => {
    const free = createServer().listen(0, "127.0.0.1");
    await once(free, "listening");
    const address = free.address();
    const port = typeof address === "object" ? address?.port : 0;
    await new Promise((resolve) => free.close(resolve));
    const init = await refusal(`postgres://me:s3cret@127.0.0.1:${port}/x`);
    expect(init).toMatchObject({ reason: "DATABASE_UNREACHABLE" });
    expect(init.message).toContain(`nothing listens at 127.0.0.1:${port}`);
  });

  it("is refused when there is no such socket", async () => {
    const init = await refusal("postgres:///x?host=/does/not/exist");
    expect(init.message).toContain("socket /does/not/exist/.s.PGSQL.5432");
  });

  it("is refused when there is no such host", async () => {
    const init = await refusal("postgres://me:s3cret@no-such-host.invalid/x");
    expect(init).toMatchObject({ reason: "DATABASE_UNREACHABLE" });
    expect(init.message).toContain('there is no host "no-such-host.invalid"');
  });

  it("is refused within seconds when the server does not answer", { timeout: 15_000 }, async () => {
    const address = mute.address();
    const port = typeof address === "object" ? address?.port : 0;
    const init = await refusal(`postgres://me:s3cret@127.0.0.1:${port}/x`);
    expect(init).toMatchObject({ reason: "DATABASE_UNREACHABLE" });
    expect(init.message).toContain("does not answer");
  });

  it("is refused when the database does not exist", async () => {
    const init = await refusal(databaseUrl(postgres.address, "absent"));
    expect(init).toMatchObject({ reason: "DATABASE_MISSING" });
    expect(init.message).toContain('no database "absent"');
  });

  it("is refused when the password is wrong or missing", async () => {
    const wrong = await refusal(withUser("guarded", "s3cret-wrong"));
    expect(wrong).toMatchObject({ reason: "DATABASE_LOGIN_REFUSED" });
    expect(wrong.message).toContain('user "guarded"');
    expect(await refusal(withUser("guarded", ""))).toMatchObject({ reason: "DATABASE_LOGIN_REFUSED" });
    expect(await refusal(withUser("unknown", "x"))).toMatchObject({ reason: "DATABASE_LOGIN_REFUSED" });
  });

  it("is refused when the user may not connect to the database", async () => {
    expect(await refusal(withUser("barred", "x"))).toMatchObject({ reason: "DATABASE_LOGIN_REFUSED" });
  });
});
