import {
  LogFormat,
  LogLevel,
  type Secret,
  type ServerConfig,
} from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { type AuthSettings, resolveAuth } from "./auth.ts";
import { milliseconds } from "./durations.ts";
import { type InboundSettings, resolveInbound } from "./inbound.ts";
import { type ReportMistake, withoutMistakes } from "./mistakes.ts";
import { type OrchestrationSettings, resolveOrchestration } from "./orchestration.ts";
import { type OutboundSettings, resolveOutbound } from "./outbound.ts";
import { resolveRedisUrl } from "./redis-url.ts";
import { resolveTesting, type TestingSettings } from "./testing.ts";

/** What the server runs with: `ServerConfig` with every default filled in, durations in milliseconds. */
export interface Settings {
  readonly listen: string;
  readonly dataDir: string;
  readonly databaseUrl: string | undefined;
  readonly allowUnauthenticatedRemoteAccess: boolean;
  readonly auth: AuthSettings;
  readonly tls: { certFile: string; keyFile: string; clientCaFile: string | undefined } | undefined;
  /** Undefined: the server's own origin and local ones. */
  readonly corsOrigins: readonly string[] | undefined;
  readonly limits: {
    readonly maxMessageBytes: number;
    readonly maxHeaderBytes: number;
    readonly maxConnections: number;
    readonly maxConcurrentStreams: number;
    readonly maxRequests: number;
    readonly maxTimeoutMs: number;
  };
  readonly registry: {
    readonly defaultLeaseTtlMs: number;
    readonly discoveryTimeoutMs: number;
    readonly refreshIntervalMs: number;
    readonly maxToolsPerService: number;
  };
  readonly health: { readonly intervalMs: number; readonly timeoutMs: number; readonly retentionMs: number };
  readonly tools: {
    readonly defaultTimeoutMs: number;
    readonly defaultConcurrency: number;
    readonly maxResultBytes: number;
  };
  readonly pool: {
    readonly maxConnections: number;
    readonly maxConnectionsPerHost: number;
    readonly maxIdleConnections: number;
    readonly connectTimeoutMs: number;
    readonly idleTimeoutMs: number;
    readonly maxAgeMs: number;
    readonly sweepIntervalMs: number;
  };
  readonly log: {
    readonly level: "debug" | "info" | "warn" | "error";
    readonly format: "json" | "pretty" | undefined;
  };
  readonly secrets: readonly Secret[];
  readonly drainTimeoutMs: number;
  readonly redisUrl: string | undefined;
  readonly inbound: InboundSettings;
  readonly outbound: OutboundSettings;
  readonly testing: TestingSettings;
  readonly orchestration: OrchestrationSettings;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const MIB = 1024 * 1024;

export const DEFAULT_LISTEN = "127.0.0.1:7400";
export const DEFAULT_DATA_DIR = ".toolplane";

/**
 * Fills in the defaults that the contract documents. Throws INVALID_ARGUMENT for values that contradict each other.
 *
 * @param folder that relative directories of test projects stand below
 * @param env where providers of models come from that need no configuration
 */
export function resolveSettings(config: ServerConfig, folder: string, env: NodeJS.ProcessEnv): Settings {
  return withoutMistakes((report) => resolve(config, folder, env, report));
}

function resolve(
  config: ServerConfig,
  folder: string,
  env: NodeJS.ProcessEnv,
  report: ReportMistake,
): Settings {
  const { limits, registry, health, tools, pool, tls } = config;
  return {
    listen: config.listen || DEFAULT_LISTEN,
    dataDir: config.dataDir || DEFAULT_DATA_DIR,
    databaseUrl: config.databaseUrl || undefined,
    allowUnauthenticatedRemoteAccess: config.allowUnauthenticatedRemoteAccess,
    auth: resolveAuth(config.auth),
    tls: tls && { certFile: tls.certFile, keyFile: tls.keyFile, clientCaFile: tls.clientCaFile || undefined },
    corsOrigins:
      config.cors && config.cors.allowedOrigins.length > 0 ? config.cors.allowedOrigins : undefined,
    limits: {
      maxMessageBytes: limits?.maxMessageBytes || 4 * MIB,
      maxHeaderBytes: limits?.maxHeaderBytes || 16 * 1024,
      maxConnections: limits?.maxConnections || 10_000,
      maxConcurrentStreams: limits?.maxConcurrentStreams || 256,
      maxRequests: limits?.maxRequests || 2_000,
      maxTimeoutMs: milliseconds(limits?.maxTimeout, DAY),
    },
    registry: {
      defaultLeaseTtlMs: milliseconds(registry?.defaultLeaseTtl, 30_000),
      discoveryTimeoutMs: milliseconds(registry?.discoveryTimeout, 4_000),
      refreshIntervalMs: milliseconds(registry?.refreshInterval, 5 * MINUTE),
      maxToolsPerService: registry?.maxToolsPerService || 5_000,
    },
    health: {
      intervalMs: milliseconds(health?.interval, MINUTE),
      timeoutMs: milliseconds(health?.timeout, 5_000),
      retentionMs: milliseconds(health?.retention, 7 * DAY),
    },
    tools: {
      defaultTimeoutMs: milliseconds(tools?.defaultTimeout, MINUTE),
      defaultConcurrency: tools?.defaultConcurrency || 5,
      maxResultBytes: tools?.maxResultBytes || 4 * MIB,
    },
    pool: {
      maxConnections: pool?.maxConnections || 100,
      maxConnectionsPerHost: pool?.maxConnectionsPerHost || 10,
      maxIdleConnections: pool?.maxIdleConnections || 20,
      connectTimeoutMs: milliseconds(pool?.connectTimeout, 5_000),
      idleTimeoutMs: milliseconds(pool?.idleTimeout, MINUTE),
      maxAgeMs: milliseconds(pool?.maxAge, 5 * MINUTE),
      sweepIntervalMs: milliseconds(pool?.sweepInterval, 30_000),
    },
    log: { level: logLevel(config.log?.level), format: logFormat(config.log?.format) },
    secrets: config.secrets,
    drainTimeoutMs: milliseconds(config.drainTimeout, 10_000),
    redisUrl: resolveRedisUrl(config.redisUrl, report),
    inbound: resolveInbound(config.inbound, report),
    outbound: resolveOutbound(config.outbound, report),
    testing: resolveTesting(config.testing, folder, report),
    orchestration: resolveOrchestration(config.orchestration, env, report),
  };
}

function logLevel(level: LogLevel = LogLevel.UNSPECIFIED): Settings["log"]["level"] {
  switch (level) {
    case LogLevel.DEBUG:
      return "debug";
    case LogLevel.UNSPECIFIED:
    case LogLevel.INFO:
      return "info";
    case LogLevel.WARN:
      return "warn";
    case LogLevel.ERROR:
      return "error";
  }
}

function logFormat(format: LogFormat = LogFormat.UNSPECIFIED): Settings["log"]["format"] {
  switch (format) {
    case LogFormat.UNSPECIFIED:
      return undefined;
    case LogFormat.JSON:
      return "json";
    case LogFormat.PRETTY:
      return "pretty";
  }
}
