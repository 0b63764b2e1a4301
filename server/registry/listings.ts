import {
  type ListServicesRequest,
  type ListToolsRequest,
  ServiceFilterSchema,
  ToolFilterSchema,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import type { Service } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { pageTokens } from "../page-token.ts";
import type { Catalogue, CatalogueService } from "./catalogue.ts";
import { servicePredicate, type ToolPredicate, toolPredicate } from "./filter.ts";
import { type ToolShape, toService, toTool } from "./messages.ts";
import type { ToolLocation } from "./resolve.ts";
import { compareKeys, type ServiceKey } from "./service-key.ts";
import { compareText } from "./version-order.ts";

const DEFAULT_PAGE_SIZE = 100;

export interface Page<T> {
  readonly items: T[];
  /** Empty: this was the last one. */
  readonly nextPageToken: string;
  /** How many match in all. */
  readonly totalSize: number;
}

/** The size of a page where 0 stands for the default. */
export function pageSizeOf(requested: number): number {
  return requested || DEFAULT_PAGE_SIZE;
}

export function listServices(
  catalogue: Catalogue,
  { filter, pageSize, pageToken }: Pick<ListServicesRequest, "filter" | "pageSize" | "pageToken">,
): Page<Service> {
  const tokens = pageTokens("services", 3, ServiceFilterSchema, filter);
  const position = tokens.read(pageToken);
  const [name = "", environment = "", version = ""] = position ?? [];
  const matching = catalogue.services().filter(servicePredicate(filter));
  const rest = position
    ? matching.filter((service) => compareKeys(service, { name, environment, version }) > 0)
    : matching;
  const items = rest.slice(0, pageSizeOf(pageSize));
  const last = items.at(-1);
  return {
    items: items.map(toService),
    nextPageToken:
      last && rest.length > items.length ? tokens.write([last.name, last.environment, last.version]) : "",
    totalSize: matching.length,
  };
}

export function listTools(
  catalogue: Catalogue,
  {
    filter,
    pageSize,
    pageToken,
    ...shape
  }: Pick<ListToolsRequest, "filter" | "pageSize" | "pageToken"> & ToolShape,
): Page<Tool> {
  const tokens = pageTokens("tools", 4, ToolFilterSchema, filter);
  const after = readToolPosition(tokens.read(pageToken));
  const matches = toolPredicate(catalogue, filter);
  const wanted = pageSizeOf(pageSize);

  // One tool more than the page holds shows whether there is a next page.
  const page: ToolLocation[] = [];
  let totalSize = 0;
  for (const group of groupByName(catalogue.services().filter(matches.service))) {
    totalSize += group.reduce((sum, service) => sum + countTools(service, matches), 0);
    const isBefore = after && compareText(group[0].name, after.service.name) < 0;
    if (isBefore || page.length > wanted) {
      continue;
    }
    for (const location of toolsByName(group, matches)) {
      if (!after || comparePositions(positionOf(location), after) > 0) {
        page.push(location);
      }
      if (page.length > wanted) {
        break;
      }
    }
  }
  const more = page.length > wanted;
  const shown = page.slice(0, wanted);
  const last = shown.at(-1);
  return {
    items: shown.map(({ service, tools, index }) => toTool(service, tools, index, shape)),
    nextPageToken: more && last ? tokens.write(writeToolPosition(positionOf(last))) : "",
    totalSize,
  };
}

/** Where a tool stands in listings: by service, name, environment and version. */
interface ToolPosition {
  readonly service: ServiceKey;
  readonly tool: string;
}

function positionOf({ service, tools, index }: ToolLocation): ToolPosition {
  return { service, tool: tools.names[index] ?? "" };
}

function comparePositions(left: ToolPosition, right: ToolPosition): number {
  return (
    compareText(left.service.name, right.service.name) ||
    compareText(left.tool, right.tool) ||
    compareKeys(left.service, right.service)
  );
}

function writeToolPosition({ service, tool }: ToolPosition): string[] {
  return [service.name, service.environment, service.version, tool];
}

function readToolPosition(parts: readonly string[] | undefined): ToolPosition | undefined {
  const [name = "", environment = "", version = "", tool = ""] = parts ?? [];
  return parts && { service: { name, environment, version }, tool };
}

function countTools(service: CatalogueService, matches: ToolPredicate): number {
  if (matches.everyTool) {
    return service.tools?.names.length ?? 0;
  }
  const { tools } = service;
  return tools?.names.filter((_, index) => matches.tool(service, tools, index)).length ?? 0;
}

/** The tools of services that share a name, ordered by name. */
function toolsByName(group: readonly CatalogueService[], matches: ToolPredicate): ToolLocation[] {
  const found: ToolLocation[] = [];
  for (const service of group) {
    const { tools } = service;
    for (const index of tools?.names.keys() ?? []) {
      if (tools && matches.tool(service, tools, index)) {
        found.push({ service, tools, index });
      }
    }
  }
  return group.length === 1
    ? found
    : found.sort((left, right) => comparePositions(positionOf(left), positionOf(right)));
}

/** Divides services, which are ordered by name, into runs of one name. */
function* groupByName(
  services: readonly CatalogueService[],
): Generator<readonly [CatalogueService, ...CatalogueService[]]> {
  let group: [CatalogueService, ...CatalogueService[]] | undefined;
  for (const service of services) {
    if (group?.[0].name === service.name) {
      group.push(service);
      continue;
    }
    if (group) {
      yield group;
    }
    group = [service];
  }
  if (group) {
    yield group;
  }
}
