import { connect } from "node:net";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import {
  Health,
  type HealthCheckResponse,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "@toolplane/gen/grpc/health/v1/health_pb.js";
import {
  type HealthCheckSpec,
  HealthStatus,
  Protocol,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { request } from "undici";
import type { ConnectionPool } from "../../pool/connection-pool.ts";
import type { Target } from "../../pool/target.ts";
import { printable } from "../printable.ts";

/** What a health check found. */
export interface Finding {
  readonly status: HealthStatus.HEALTHY | HealthStatus.UNHEALTHY;
  /** For people. */
  readonly message: string;
}

export interface Probe {
  readonly spec: HealthCheckSpec | undefined;
  /** Throws when a secret is missing. */
  target(): Target;
  readonly pool: ConnectionPool;
  readonly timeoutMs: number;
  /** Aborted when the time is over. */
  readonly signal: AbortSignal;
}

/** Checks one instance once. Never throws: whatever goes wrong is what the check found. */
export async function probe(options: Probe): Promise<Finding> {
  try {
    return await probeByKind(options);
  } catch (error) {
    return unhealthy(
      options.signal.aborted ? `No answer within ${options.timeoutMs / 1_000} s` : describe(error),
    );
  }
}

async function probeByKind({ spec, target, pool, signal }: Probe): Promise<Finding> {
  const kind = spec?.kind ?? { case: undefined };
  switch (kind.case) {
    case "grpc":
      return await probeGrpc(target(), kind.value.service, pool, signal);
    case "http":
      return await probeHttp(target(), kind.value.path, pool, signal);
    case "tcp":
      return await probeTcp(target(), signal);
    case "none":
      return healthy("Not checked, as its service wants it");
    case undefined: {
      const destination = target();
      return destination.protocol === Protocol.HTTP
        ? await probeTcp(destination, signal)
        : await probeGrpc(destination, "", pool, signal);
    }
  }
}

async function probeGrpc(
  target: Target,
  service: string,
  pool: ConnectionPool,
  signal: AbortSignal,
): Promise<Finding> {
  try {
    return fromServing(await createClient(Health, pool.transport(target)).check({ service }, { signal }));
  } catch (error) {
    if (isWithoutHealthService(error)) {
      return healthy("Answers; the server has no health service");
    }
    throw error;
  }
}

/** Follows `Watch` and calls back with everything it says, until the server or `signal` ends it. */
export async function followGrpcHealth(
  target: Target,
  service: string,
  pool: ConnectionPool,
  signal: AbortSignal,
  onFinding: (finding: Finding) => void,
): Promise<void> {
  const answers = createClient(Health, pool.transport(target)).watch({ service }, { signal });
  for await (const answer of answers) {
    onFinding(fromServing(answer));
  }
}

function isWithoutHealthService(error: unknown): boolean {
  return error instanceof ConnectError && error.code === Code.Unimplemented;
}

function fromServing({ status }: HealthCheckResponse): Finding {
  switch (status) {
    case ServingStatus.SERVING:
      return healthy("SERVING");
    case ServingStatus.NOT_SERVING:
      return unhealthy("NOT_SERVING");
    case ServingStatus.SERVICE_UNKNOWN:
      return unhealthy("SERVICE_UNKNOWN: the server does not know the service that is asked for");
    case ServingStatus.UNKNOWN:
      return unhealthy("UNKNOWN: the server does not say");
    default:
      return unhealthy(`The server answered with the unknown status ${status}`);
  }
}

async function probeHttp(
  target: Target,
  path: string,
  dispatcher: Pick<ConnectionPool, "dispatcher">,
  signal: AbortSignal,
): Promise<Finding> {
  const { statusCode, body } = await request(target.endpoint.replace(/\/+$/, "") + path, {
    ...dispatcher,
    method: "GET",
    headers: Object.fromEntries(target.headers),
    signal,
  });
  // The body has to be read, or at least let go of, before the connection can be used again.
  await body.dump();
  const text = `HTTP status ${statusCode}`;
  return statusCode >= 200 && statusCode < 300 ? healthy(text) : unhealthy(text);
}

async function probeTcp(target: Target, signal: AbortSignal): Promise<Finding> {
  const { hostname, port, protocol } = new URL(target.endpoint);
  const socket = connect({
    host: hostname.replace(/^\[|\]$/g, ""),
    port: Number(port) || (protocol === "https:" ? 443 : 80),
    signal,
  });
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return healthy("Accepts connections");
  } finally {
    socket.destroy();
  }
}

function healthy(message: string): Finding {
  return { status: HealthStatus.HEALTHY, message };
}

function unhealthy(message: string): Finding {
  return { status: HealthStatus.UNHEALTHY, message: printable(message, 500) };
}

function describe(error: unknown): string {
  if (error instanceof DomainError) {
    return `${error.init.reason}: ${error.message}`;
  }
  if (error instanceof AggregateError && error.message === "") {
    return error.errors.map(describe).join("; ");
  }
  return error instanceof Error ? error.message : String(error);
}
