// The registry with 10,000 services and 100,000 tools, all different.
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { create, toBinary } from "@bufbuild/protobuf";
import { createLogger, systemClock } from "@toolplane/framework";
import {
  HealthStatus,
  InstanceSpecSchema,
  Lifetime,
  ServiceSpecSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { encodeToolSet } from "../server/registry/tool-set.ts";
import { type Database, openDatabase } from "../server/storage/database.ts";
import { startPrivatePostgres } from "../server/storage/private-postgres.ts";
import { describeService } from "./registry-corpus.ts";
import type { Measurements } from "./registry-process.ts";
import type { BenchRow } from "./row.ts";

const SERVICES = 10_000;
const TOOLS_PER_SERVICE = 10;
const SERVICES_PER_INSERT = 250;
const CHILD_TIMEOUT_MS = 180_000;

export async function run(): Promise<BenchRow[]> {
  const logger = createLogger({ level: "error" });
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-bench-"));
  const postgres = await startPrivatePostgres({ dataDir, logger, clock: systemClock });
  try {
    const { host, port, user } = postgres.address;
    const url = `postgres:///postgres?${new URLSearchParams({ host, port: String(port), user })}`;
    const database = await openDatabase({ url, dataDir, logger });
    await fill(database);
    await database.close();
    return toRows(await measure(url));
  } finally {
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** Writes the rows that as many registrations would have written, many at a time. */
async function fill({ kysely }: Database): Promise<void> {
  for (let first = 0; first < SERVICES; first += SERVICES_PER_INSERT) {
    const described = await Promise.all(
      Array.from({ length: SERVICES_PER_INSERT }, async (_, offset) => {
        const { name, tools } = describeService(first + offset, TOOLS_PER_SERVICE);
        return { key: { name, environment: "default", version: "1.0.0" }, tools: await encodeToolSet(tools) };
      }),
    );
    await kysely.transaction().execute(async (tx) => {
      await tx
        .insertInto("registry_tool_sets")
        .values(
          described.map(({ tools: { digest, schemaDigest, bytes } }) => ({
            digest,
            schema_digest: schemaDigest,
            bytes: Buffer.from(bytes),
          })),
        )
        .execute();
      await tx
        .insertInto("registry_services")
        .values(
          described.map(({ key, tools }) => ({
            ...key,
            spec: Buffer.from(
              toBinary(
                ServiceSpecSchema,
                create(ServiceSpecSchema, {
                  ...key,
                  description: "A service of the benchmark.",
                  source: { kind: { case: "descriptors", value: {} } },
                  healthCheck: { kind: { case: "none", value: {} } },
                }),
              ),
            ),
            tool_set: tools.digest,
            definition: null,
            problems: "[]",
            discover_time: new Date(),
            revision: 1,
          })),
        )
        .execute();
      await tx
        .insertInto("registry_instances")
        .values(
          described.map(({ key }, offset) => {
            const id = `${key.name}:instance`;
            const spec = create(InstanceSpecSchema, {
              id,
              endpoint: `http://127.0.0.1:${1 + ((first + offset) % 65_000)}`,
              lifetime: Lifetime.PERMANENT,
            });
            return {
              id,
              ...key,
              spec: Buffer.from(toBinary(InstanceSpecSchema, spec)),
              health: HealthStatus.HEALTHY,
            };
          }),
        )
        .execute();
    });
  }
  await kysely.updateTable("registry_head").set({ revision: 1, pruned_revision: 1 }).execute();
}

async function measure(url: string): Promise<Measurements> {
  const program = join(import.meta.dirname, "registry-process.ts");
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--conditions=toolplane-source", program, url],
    {
      timeout: CHILD_TIMEOUT_MS,
    },
  );
  return JSON.parse(stdout);
}

function toRows(found: Measurements): BenchRow[] {
  const size = `${found.services.toLocaleString("en")} services, ${found.tools.toLocaleString("en")} tools`;
  const ms = (value: number) => `${value < 10 ? value.toFixed(2) : Math.round(value)} ms`;
  const mb = (value: number) => `${Math.round(value)} MB`;
  const row = (what: string, ours: string, target: string, pass: boolean): BenchRow => ({
    area: "registry",
    what,
    ours,
    peer: "–",
    peerName: "",
    ratio: "–",
    target,
    pass,
  });
  return [
    row(`process start to serving, ${size}`, ms(found.startMs), "< 3 s", found.startMs < 3_000),
    row("resident memory, everything searchable", mb(found.startedMb), "< 600 MB", found.startedMb < 600),
    row("resident memory after listing all, 20,000 gets and 4,000 searches", mb(found.readMb), "–", true),
    row("process start to everything searchable", ms(found.indexedMs), "–", true),
    row("longest pause while indexing", ms(found.longestPauseMs), "–", true),
    row("get a tool with schemas, p99", ms(found.getP99Ms), "< 1 ms", found.getP99Ms < 1),
    row("search, p50", ms(found.searchP50Ms), "–", true),
    row("search, p99", ms(found.searchP99Ms), "< 10 ms", found.searchP99Ms < 10),
    row(
      "register a server by reflection to callable",
      ms(found.callableMs),
      "< 5 s",
      found.callableMs < 5_000,
    ),
    row(
      "registration to a watcher of another replica, p99",
      ms(found.watcherP99Ms),
      "< 100 ms",
      found.watcherP99Ms < 100,
    ),
  ];
}
