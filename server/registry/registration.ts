import { createHash } from "node:crypto";
import { clone, equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  HealthStatus,
  type InstanceSpec,
  InstanceSpecSchema,
  Lifetime,
  type ServiceSpec,
  ServiceSpecSchema,
  SourceSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { normalizeEndpoint } from "../backends/endpoint.ts";
import { milliseconds } from "../config/durations.ts";
import { DEFAULT_ENVIRONMENT, DEFAULT_VERSION, type ServiceKey } from "./service-key.ts";
import type { DiscoveryOutcome, RegistrationWrite } from "./store.ts";
import { effectiveProtocol } from "./target.ts";

/** A registration with every default filled in. */
export interface Registration {
  readonly key: ServiceKey;
  readonly spec: ServiceSpec;
  readonly instance: InstanceSpec;
  /** Undefined: permanent. */
  readonly leaseTtlMs: number | undefined;
}

/** Fills in the defaults of a registration. Throws INVALID_ARGUMENT for an endpoint that is none. */
export function completeRegistration(
  service: ServiceSpec,
  instance: InstanceSpec,
  defaultLeaseTtlMs: number,
): Registration {
  const spec = clone(ServiceSpecSchema, service);
  spec.environment ||= DEFAULT_ENVIRONMENT;
  spec.version ||= DEFAULT_VERSION;
  const key = { name: spec.name, environment: spec.environment, version: spec.version };

  const copy = clone(InstanceSpecSchema, instance);
  copy.protocol = effectiveProtocol(copy.protocol);
  copy.endpoint = normalizeEndpoint(copy.endpoint, copy.protocol);
  copy.id ||= deriveInstanceId(key, copy.endpoint);
  if (copy.lifetime === Lifetime.PERMANENT) {
    delete copy.leaseTtl;
    return { key, spec, instance: copy, leaseTtlMs: undefined };
  }
  copy.lifetime = Lifetime.LEASED;
  // Leases are kept in whole milliseconds, and last no shorter than asked for.
  const leaseTtlMs = Math.ceil(milliseconds(copy.leaseTtl, defaultLeaseTtlMs));
  copy.leaseTtl = durationFromMs(leaseTtlMs);
  return { key, spec, instance: copy, leaseTtlMs };
}

/**
 * The id of an instance that brings none. The version is left out, so that an address that is registered again with
 * another version moves to it instead of being in both.
 */
function deriveInstanceId({ name, environment }: ServiceKey, endpoint: string): string {
  const digest = createHash("sha256").update(`${environment}\n${endpoint}`).digest("hex");
  return `${name}:${digest.slice(0, 16)}`;
}

export function toWrite(
  { key, spec, instance, leaseTtlMs }: Registration,
  outcome: DiscoveryOutcome,
): RegistrationWrite {
  return {
    key,
    spec: toBinary(ServiceSpecSchema, spec),
    instanceId: instance.id,
    instanceSpec: toBinary(InstanceSpecSchema, instance),
    leaseTtlMs,
    health: spec.healthCheck?.kind.case === "none" ? HealthStatus.HEALTHY : HealthStatus.UNKNOWN,
    outcome,
    keepsTools: (stored) => hasSameSource(spec, fromBinary(ServiceSpecSchema, stored)),
  };
}

/** Whether both learn their tools from the same place. */
export function hasSameSource({ source: left }: ServiceSpec, { source: right }: ServiceSpec): boolean {
  return left && right ? equals(SourceSchema, left, right) : left === right;
}
