import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { ServiceFilterInit } from "../../index.ts";
import type { ServiceFilterOptions } from "../commands/services.ts";
import { UsageError } from "../usage-error.ts";

/** The filter that the options of a command mean. */
export function toServiceFilter(name: string | undefined, options: ServiceFilterOptions): ServiceFilterInit {
  return {
    name: name ?? "",
    environment: options.environment ?? "",
    version: options.version ?? "",
    tags: [...(options.tag ?? [])],
    health: parseHealth(options.health),
  };
}

function parseHealth(text: string | undefined): HealthStatus {
  switch (text) {
    case undefined:
      return HealthStatus.UNSPECIFIED;
    case "healthy":
      return HealthStatus.HEALTHY;
    case "unhealthy":
      return HealthStatus.UNHEALTHY;
    case "unknown":
      return HealthStatus.UNKNOWN;
    default:
      throw new UsageError(`--health: "${text}" is not one of healthy, unhealthy and unknown`);
  }
}
