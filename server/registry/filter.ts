import type { ServiceFilter, ToolFilter } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Catalogue, CatalogueService } from "./catalogue.ts";
import type { ServiceKey } from "./service-key.ts";
import type { ToolSet } from "./tool-set.ts";

/** Whether a service is meant. Made once per request. */
export type ServicePredicate = (service: CatalogueService) => boolean;

export function servicePredicate(filter: ServiceFilter | undefined): ServicePredicate {
  if (!filter) {
    return () => true;
  }
  const { tags, health } = filter;
  const isMeant = keyPredicate(filter);
  return (service) =>
    isMeant(service) && tags.every((tag) => service.spec.tags.includes(tag)) && hasHealth(service, health);
}

/** Whether a service can be meant, by what of it never changes. */
export function keyPredicate(filter: ServiceFilter | undefined): (key: ServiceKey) => boolean {
  const { environment = "", version = "" } = filter ?? {};
  const part = filter?.name.toLowerCase() ?? "";
  return (key) =>
    (part === "" || key.name.toLowerCase().includes(part)) &&
    (environment === "" || key.environment === environment) &&
    (version === "" || key.version === version);
}

export interface ToolPredicate {
  /** Whether any tool of the service can be meant. */
  service: ServicePredicate;
  /** Whether all tools of such a service are meant. */
  readonly everyTool: boolean;
  /** Whether the tool at this place of the service's tools is meant, given that its service is. */
  tool(service: CatalogueService, tools: ToolSet, index: number): boolean;
}

export function toolPredicate(catalogue: Catalogue, filter: ToolFilter | undefined): ToolPredicate {
  const { service: serviceName = "", environment = "", version = "", tags = [] } = filter ?? {};
  const health = filter?.health ?? HealthStatus.UNSPECIFIED;
  const part = filter?.name.toLowerCase() ?? "";
  return {
    service: (service) =>
      (serviceName === "" || service.name === serviceName) &&
      hasHealth(service, health) &&
      (environment === "" || service.environment === environment) &&
      (version === "" ? catalogue.isHighest(service) : service.version === version),
    everyTool: tags.length === 0 && part === "",
    tool: (service, tools, index) =>
      tags.every((tag) => tools.tags[index]?.includes(tag) || service.spec.tags.includes(tag)) &&
      (part === "" || `${service.name}.${tools.names[index]}`.toLowerCase().includes(part)),
  };
}

function hasHealth({ instances }: CatalogueService, health: HealthStatus): boolean {
  return health === HealthStatus.UNSPECIFIED || instances.some((instance) => instance.health === health);
}
