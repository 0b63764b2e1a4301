import { type AddressInfo, isIP, isIPv6 } from "node:net";
import { hostname } from "node:os";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type HeaderSchema, Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Logger } from "pino";
import type { Clock } from "../clock.ts";
import { invalidArgument } from "../errors/domain-error.ts";
import { isLoopback } from "./host-check.ts";
import { createRegistration, type Registration } from "./registration.ts";

/** How a server registers itself. */
export interface RegisterOptions {
  /** Where the registry listens. Default: `TOOLPLANE_URL`; without either the server registers nowhere. */
  readonly url?: string | undefined;
  /** Sent to the registry as a bearer token. Default: `TOOLPLANE_TOKEN`. */
  readonly token?: string | undefined;
  /** Where the service runs, such as `staging`. Default: `default`. */
  readonly environment?: string | undefined;
  /** A short name for people. Default: none. */
  readonly title?: string | undefined;
  /** What the service is for. Default: none. */
  readonly description?: string | undefined;
  /** Labels that the service and all of its tools are found by. Default: none. */
  readonly tags?: readonly string[] | undefined;
  /** Free facts about the service. Default: none. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** What the registry sends with every request to the service, such as an API key. Default: nothing. */
  readonly headers?: readonly MessageInitShape<typeof HeaderSchema>[] | undefined;
  /**
   * The address under which the registry reaches the server, where that is not the one it listens on: a host, `host:port`,
   * or a URL. Default: the address it listens on, with the host name in place of all interfaces (`0.0.0.0` or `::`).
   */
  readonly advertise?: string | undefined;
  /** How long the registration lasts when the process dies, in milliseconds. Default: the registry's, 30,000. */
  readonly leaseTtlMs?: number | undefined;
  /** Identifies this copy of the service. Default: `hostname-pid-random`. */
  readonly instanceId?: string | undefined;
}

/** What a server knows of itself once it listens. */
export interface RunningServer {
  readonly name: string;
  readonly version?: string | undefined;
  readonly address: AddressInfo;
  /** Whether it speaks TLS. */
  readonly secure: boolean;
  readonly logger: Pick<Logger, "debug" | "info" | "warn">;
  readonly clock: Clock;
}

/**
 * Registers a server that listens.
 *
 * @param env where defaults are read from
 * @returns undefined when no registry is named
 */
export function registerServer(
  options: RegisterOptions,
  server: RunningServer,
  env: Readonly<Record<string, string | undefined>>,
): Registration | undefined {
  const url = options.url ?? env["TOOLPLANE_URL"];
  if (!url) {
    return undefined;
  }
  const endpoint = advertisedEndpoint(server.address, server.secure, options.advertise);
  if (isLoopback(hostOf(endpoint)) && !isLoopback(hostOf(url))) {
    server.logger.warn(
      { registry: url, endpoint },
      "a registry on another machine cannot reach this address: listen on another one, or advertise one",
    );
  }
  const { environment, title, description, tags, metadata, headers, leaseTtlMs } = options;
  return createRegistration({
    url,
    token: options.token ?? env["TOOLPLANE_TOKEN"],
    service: {
      name: server.name,
      ...(server.version !== undefined && { version: server.version }),
      ...(environment !== undefined && { environment }),
      ...(title !== undefined && { title }),
      ...(description !== undefined && { description }),
      tags: [...(tags ?? [])],
      metadata: { ...metadata },
      headers: [...(headers ?? [])],
    },
    instance: {
      ...(options.instanceId !== undefined && { id: options.instanceId }),
      endpoint,
      protocol: Protocol.GRPC,
      ...(leaseTtlMs !== undefined && { leaseTtl: durationFromMs(leaseTtlMs) }),
    },
    logger: server.logger,
    clock: server.clock,
  });
}

/**
 * The URL that others reach a server by.
 *
 * @param address where it listens
 * @param advertise see `RegisterOptions.advertise`
 */
export function advertisedEndpoint(address: AddressInfo, secure: boolean, advertise?: string): string {
  const host = advertise ?? (isUnspecified(address.address) ? hostname() : address.address);
  const url = host.includes("://") ? host : `${secure ? "https" : "http"}://${withPort(host, address.port)}`;
  if (!/^https?:/.test(url) || !URL.canParse(url)) {
    throw invalidArgument([
      { field: "register.advertise", description: `"${host}" is no address; write host, host:port or a URL` },
    ]);
  }
  return url.replace(/\/+$/, "");
}

function hostOf(url: string): string {
  return URL.parse(url.includes("://") ? url : `http://${url}`)?.hostname ?? "";
}

function isUnspecified(ip: string): boolean {
  return isIP(ip) !== 0 && /^[0:.]+$/.test(ip);
}

function withPort(host: string, port: number): string {
  if (isIPv6(host)) {
    return `[${host}]:${port}`;
  }
  return /:\d+$/.test(host) ? host : `${host}:${port}`;
}
