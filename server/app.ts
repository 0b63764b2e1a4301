import { type Clock, type Logger, type Server, serve } from "@toolplane/framework";
import { documentedDescriptors } from "@toolplane/gen/toolplane/documented_descriptors.js";
import { createAccess } from "./access/access.ts";
import { refuseOpenAddress } from "./access/open-address.ts";
import { protectHttp } from "./access/protect-http.ts";
import { keyHandlers } from "./access/service.ts";
import { type Admin, createAdmin } from "./admin/admin.ts";
import { createAdminSources } from "./admin-sources.ts";
import { createRpcBackend } from "./backends/rpc/backend.ts";
import { createUtcpBackend } from "./backends/utcp/backend.ts";
import { createSecretResolver } from "./config/secrets.ts";
import type { Settings } from "./config/settings.ts";
import { openEventLog } from "./event-log/open-event-log.ts";
import { openInbound } from "./inbound.ts";
import { readTls, refuseUnusableAddress } from "./listening.ts";
import { type Orchestrating, openOrchestrating } from "./orchestrating.ts";
import { isRunEventsPath } from "./orchestration/sse.ts";
import { openOutbound } from "./outbound.ts";
import { PartsInReverse } from "./parts.ts";
import { type ConnectionPool, createConnectionPool } from "./pool/index.ts";
import { createRegistry, OWN_SERVICE, type Registry } from "./registry/registry.ts";
import { registryRoutes } from "./registry/service.ts";
import { type Database, openDatabase } from "./storage/database.ts";
import { openTestRunning } from "./test-running.ts";
import { isEventsPath } from "./test-runs/test-runs.ts";
import { createCaller } from "./tools/caller.ts";
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
    const { maxResultBytes, defaultConcurrency } = settings.tools;
    const inbound = parts.own(await openInbound({ settings, database, access, clock, logger }));
    const { outbound, caches, requestIds } = parts.own(
      await openOutbound({
        settings,
        database,
        registry,
        clock,
        logger,
        env,
        onBreakerChange: (event) => admin.breakerChanged(event),
      }),
    );
    const eventLog = parts.own(await openEventLog({ database, clock, logger }));
    const testRunning = parts.own(
      await openTestRunning({ settings: settings.testing, database, eventLog, clock, logger, env }),
    );
    const admin: Admin = parts.own(
      createAdmin({
        clock,
        version,
        sources: createAdminSources({
          settings,
          registry,
          inbound,
          outbound,
          caches,
          pool,
          requestIds,
          streams: () => server.streams(),
          runs: { open: () => orchestrating.metrics.open(), stats: () => orchestrating.metrics.stats() },
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
    const orchestrating: Orchestrating = parts.own(
      await openOrchestrating({
        settings,
        database,
        eventLog,
        registry,
        caller,
        answers: caches?.answers,
        clock,
        logger,
        env,
      }),
    );
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
        timeoutOf: inbound.timeoutOf,
        http: [
          protectHttp(admin.http, (path) => path === "/metrics", "reader", access),
          protectHttp(testRunning.http, isEventsPath, "reader", access),
          protectHttp(orchestrating.http, isRunEventsPath, "reader", access),
        ],
        onCall: admin.onCall,
        async onDrain() {
          admin.drain();
          testRunning.drain();
          await Promise.all([orchestrating.drain(), registry.drain()]);
        },
        ready: () => database.ping(),
        routes(router) {
          registryRoutes(registry)(router);
          toolRoutes({ caller, clock, defaultConcurrency, maxResultBytes })(router);
          testRunning.routes(router);
          orchestrating.routes(router);
          admin.routes(router);
        },
      }),
    );
    pool.attach(server.url, server.localClient);
    await registry.registerLocal({ version, endpoint: server.url, descriptors: documented });
    orchestrating.begin();
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
