import { readFileSync } from "node:fs";
import { Code } from "@connectrpc/connect";
import {
  type Clock,
  checkListenAddress,
  DomainError,
  invalidArgument,
  type Logger,
  type Server,
  serve,
  type TlsOptions,
} from "@toolplane/framework";
import { documentedDescriptors } from "@toolplane/gen/toolplane/documented_descriptors.js";
import { createAccess } from "./access/access.ts";
import { refuseOpenAddress } from "./access/open-address.ts";
import { keyHandlers } from "./access/service.ts";
import { type Admin, createAdmin } from "./admin/admin.ts";
import { createAdminSources } from "./admin-sources.ts";
import { createRpcBackend } from "./backends/rpc/backend.ts";
import { createUtcpBackend } from "./backends/utcp/backend.ts";
import { openToolCache } from "./cache/tool-cache.ts";
import { createSecretResolver } from "./config/secrets.ts";
import type { Settings } from "./config/settings.ts";
import { openRequestIds } from "./idempotency/request-ids.ts";
import { openInbound } from "./inbound.ts";
import { type ConnectionPool, createConnectionPool } from "./pool/index.ts";
import { createRegistry, OWN_SERVICE, type Registry } from "./registry/registry.ts";
import { registryRoutes } from "./registry/service.ts";
import { type Database, openDatabase } from "./storage/database.ts";
import { createCaller } from "./tools/caller.ts";
import { createIdempotentCalls } from "./tools/idempotent-calls.ts";
import { createOutbound } from "./tools/outbound.ts";
import { toolRoutes } from "./tools/service.ts";
import { version } from "./version.ts";

/** A running Toolplane server. */
export interface App extends Pick<Server, "url" | "address" | "logger" | "close"> {
  readonly databaseKind: Database["kind"];
  /** How many services and tools the catalogue holds, its own included. */
  counts(): { services: number; tools: number };
}

export interface AppOptions {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Where secrets may be read from. */
  readonly env: NodeJS.ProcessEnv;
}

/** Puts the parts together, in the order in which they need each other, and starts to serve. */
export async function createApp({ settings, clock, logger, env }: AppOptions): Promise<App> {
  const tls = readTls(settings);
  refuseOpenAddress(settings);
  await refuseUnusableAddress(settings);
  const parts = new PartsInReverse();
  try {
    const database = parts.own(
      await openDatabase({ url: settings.databaseUrl, dataDir: settings.dataDir, logger, clock }),
    );
    const access = parts.own(await createAccess({ database, clock, logger, settings, env }));
    const pool: ConnectionPool = parts.own(createConnectionPool({ logger, clock, limits: settings.pool }));
    const secrets = createSecretResolver(settings.secrets, env);
    const registry: Registry = parts.own(
      await createRegistry({
        database,
        pool,
        secrets,
        clock,
        logger,
        options: { ...settings.registry, health: settings.health },
      }),
    );
    const { maxResultBytes, defaultTimeoutMs, defaultConcurrency } = settings.tools;
    const inbound = parts.own(await openInbound({ settings, database, access, clock, logger }));
    const cache = await openToolCache({ settings, database, clock, logger, env });
    if (cache) {
      parts.own(cache);
    }
    const requestIds = parts.own(
      await openRequestIds({ database, retentionMs: settings.inbound.idempotencyRetentionMs, clock, logger }),
    );
    const outbound = parts.own(
      createOutbound({
        settings: settings.outbound,
        defaultTimeoutMs,
        registry,
        cache,
        idempotent: createIdempotentCalls(requestIds, logger),
        clock,
        onBreakerChange: (event) => admin.breakerChanged(event),
      }),
    );
    const admin: Admin = parts.own(
      createAdmin({
        clock,
        version,
        sources: createAdminSources({
          inbound,
          outbound,
          pool,
          cache,
          streams: () => server.streams(),
          batchWriters: () => registry.batchWriters(),
          maxShared: settings.outbound.deduplication?.maxInFlight ?? 0,
        }),
        keyHandlers: keyHandlers(access.keys),
      }),
    );
    const caller = createCaller({
      registry,
      backends: [
        createRpcBackend({ pool, maxResultBytes }),
        createUtcpBackend({ pool, maxResultBytes, secrets, clock }),
      ],
      outbound,
      clock,
      onCall: (tool) => admin.callStarted(tool),
    });
    const documented = Buffer.from(documentedDescriptors, "base64");
    const server: Server = parts.own(
      await serve({
        name: OWN_SERVICE,
        version,
        listen: settings.listen,
        tls,
        ...(settings.corsOrigins && { cors: { allowedOrigins: settings.corsOrigins } }),
        limits: settings.limits,
        logger,
        clock,
        drainTimeoutMs: settings.drainTimeoutMs,
        documented,
        register: false,
        gates: [admin.gate, ...inbound.gates],
        interceptors: inbound.interceptors,
        http: [admin.http],
        onCall: admin.onCall,
        async onDrain() {
          admin.drain();
          await registry.drain();
        },
        ready: () => database.ping(),
        routes(router) {
          registryRoutes(registry)(router);
          toolRoutes({ caller, clock, defaultConcurrency, maxResultBytes })(router);
          admin.routes(router);
        },
      }),
    );
    pool.attach(server.url, server.localClient);
    await registry.registerLocal({ version, endpoint: server.url, descriptors: documented });
    return {
      url: server.url,
      address: server.address,
      logger,
      databaseKind: database.kind,
      counts: () => registry.counts(),
      close: () => parts.close(),
    };
  } catch (error) {
    await parts.close();
    throw error;
  }
}

/** Closes what was opened, last first, each whatever happened to the others. */
class PartsInReverse {
  readonly #parts: { close(): Promise<void> }[] = [];
  #closing: Promise<void> | undefined;

  own<T extends { close(): Promise<void> }>(part: T): T {
    this.#parts.push(part);
    return part;
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    const failures: unknown[] = [];
    for (const part of this.#parts.toReversed()) {
      await part.close().catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) {
      throw new AggregateError(failures, "some parts of the server could not be closed");
    }
  }
}

function readTls({ tls }: Settings): TlsOptions | undefined {
  return (
    tls && {
      cert: readPem("tls.cert_file", tls.certFile),
      key: readPem("tls.key_file", tls.keyFile),
      ...(tls.clientCaFile && { clientCa: readPem("tls.client_ca_file", tls.clientCaFile) }),
    }
  );
}

function readPem(field: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw invalidArgument([{ field, description: `the file cannot be read: ${why}` }], error);
  }
}

/** Says so before a database is started for nothing. */
async function refuseUnusableAddress({ listen }: Settings): Promise<void> {
  try {
    await checkListenAddress(listen);
  } catch (error) {
    if (!(error instanceof DomainError) || error.init.code !== Code.FailedPrecondition) {
      throw error;
    }
    throw new DomainError({
      ...error.init,
      preconditions: [
        {
          type: "CONFIGURATION",
          subject: "listen",
          description:
            "Choose another address with --listen, TOOLPLANE_LISTEN or listen; port 0 takes a free one.",
        },
      ],
    });
  }
}
