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

let server: Promise<TestServer> | undefined;
let databases = 0;

// This module is loaded anew for every test file, so each file has a server of its own, if it asks for one.
afterAll(async () => {
  const started = await server;
  await started?.postgres.stop();
  if (started !== undefined) {
    await rm(started.folder, { recursive: true, force: true });
  }
});

/** The URL of a new, empty database on this test file's own PostgreSQL server, which stops after the last test. */
export async function createTestDatabaseUrl(): Promise<string> {
  server ??= startServer();
  const { address } = (await server).postgres;
  const name = `test_${++databases}`;
  const client = new pg.Client({ ...address });
  await client.connect();
  try {
    await client.query(`create database ${name}`);
  } finally {
    await client.end();
  }
  return databaseUrl(address, name);
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
