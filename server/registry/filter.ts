import type { ServiceFilter, ToolFilter } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Catalogue, CatalogueService } from "./catalogue.ts";

/** Whether a service is meant. Made once per request. */
export type ServicePredicate = (service: CatalogueService) => boolean;

export function servicePredicate(filter: ServiceFilter | undefined): ServicePredicate {
  if (!filter) {
    return () => true;
  }
  const { environment, version, tags, health } = filter;
  const name = filter.name.toLowerCase();
  return (service) =>
    (name === "" || service.name.toLowerCase().includes(name)) &&
    (environment === "" || service.environment === environment) &&
    (version === "" || service.version === version) &&
    tags.every((tag) => service.spec.tags.includes(tag)) &&
    (health === HealthStatus.UNSPECIFIED || service.instances.some((instance) => instance.health === health));
}

export interface ToolPredicate {
  /** Whether any tool of the service can be meant. */
  service: ServicePredicate;
  /** Whether all tools of such a service are meant. */
  readonly everyTool: boolean;
  /** Whether the tool with these tags of its own is meant, given that its service is. */
  tool(service: CatalogueService, ownTags: readonly string[]): boolean;
}

export function toolPredicate(catalogue: Catalogue, filter: ToolFilter | undefined): ToolPredicate {
  const { service: name = "", environment = "", version = "", tags = [] } = filter ?? {};
  return {
    service: (service) =>
      (name === "" || service.name === name) &&
      (environment === "" || service.environment === environment) &&
      (version === "" ? catalogue.isHighest(service) : service.version === version),
    everyTool: tags.length === 0,
    tool: (service, ownTags) => tags.every((tag) => ownTags.includes(tag) || service.spec.tags.includes(tag)),
  };
}
