import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "@toolplane/framework";
import pg from "pg";
import { afterAll } from "vitest";
import { type Database, type DatabaseOptions, openDatabase } from "./database.ts";
import { type PrivatePostgres, startPrivatePostgres } from "./private-postgres.ts";
import { silentLogger } from "./silent-logger.ts";

interface TestServer {
  readonly postgres: PrivatePostgres;
  readonly folder: string;
}

/** A PostgreSQL that tests make their databases on. Unset: each test file starts one of its own. */
const SHARED_URL = process.env["TOOLPLANE_TEST_DATABASE_URL"];

let server: Promise<TestServer> | undefined;
let databases = 0;
/** Databases on a shared server, to be removed. */
const made: string[] = [];

// This module is loaded anew for every test file, so each file has a server of its own, if it asks for one.
afterAll(async () => {
  for (const name of made) {
    await execute({ connectionString: SHARED_URL }, `drop database ${name} with (force)`);
  }
  const started = await server;
  await started?.postgres.stop();
  if (started !== undefined) {
    await rm(started.folder, { recursive: true, force: true });
  }
});

/** The URL of a new, empty database, which goes after the last test of this file. */
export async function createTestDatabaseUrl(): Promise<string> {
  if (SHARED_URL !== undefined) {
    const name = `test_${randomUUID().replaceAll("-", "")}`;
    await execute({ connectionString: SHARED_URL }, `create database ${name}`);
    made.push(name);
    const url = new URL(SHARED_URL);
    url.pathname = `/${name}`;
    return url.href;
  }
  server ??= startServer();
  const { address } = (await server).postgres;
  const name = `test_${++databases}`;
  await execute(address, `create database ${name}`);
  return databaseUrl(address, name);
}

async function execute(config: pg.ClientConfig, statement: string): Promise<void> {
  const client = new pg.Client({ ...config });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

/** Opens a new database with the whole schema and nothing in it. The caller closes it. */
export async function openTestDatabase(options: Partial<DatabaseOptions> = {}): Promise<Database> {
  const url = await createTestDatabaseUrl();
  return openDatabase({ url, dataDir: tmpdir(), logger: silentLogger, ...options });
}

/** The URL of a database that is reached through a socket. */
export function databaseUrl(address: PrivatePostgres["address"], database: string): string {
  const query = new URLSearchParams({ host: address.host, port: String(address.port), user: address.user });
  return `postgres:///${database}?${query}`;
}

async function startServer(): Promise<TestServer> {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  const postgres = await startPrivatePostgres({
    dataDir: folder,
    logger: silentLogger,
    clock: systemClock,
    // Some tests have a dozen servers on one.
    maxConnections: 200,
  });
  return { postgres, folder };
}
