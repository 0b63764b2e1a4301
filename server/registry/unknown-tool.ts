import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { type Catalogue, type CatalogueService, lastSegment } from "./catalogue.ts";
import { DEFAULT_ENVIRONMENT } from "./service-key.ts";
import type { StoredProblem } from "./tables.ts";

/** How many versions or environments are named. */
const MAX_NAMED = 10;

/** Where a tool was looked for. */
interface Place {
  readonly environment: string;
  readonly version: string | undefined;
}

/** NOT_FOUND with what explains it: where the tool is, why its service's tools are not known, or what is spelt like it. */
export function unknownTool(
  catalogue: Catalogue,
  name: string,
  place: Place,
  suggestions: readonly string[],
): DomainError {
  const { environment, version } = place;
  const where = [
    environment === DEFAULT_ENVIRONMENT ? "" : ` in environment "${environment}"`,
    version ? ` in version "${version}"` : "",
  ].join("");
  const problem = problemOf(catalogue, name, place);
  const elsewhere = whereElse(catalogue, name, place);
  const hints = [
    ...(problem ? [`not all tools of the service are known: ${problem.reason}: ${problem.message}`] : []),
    ...(elsewhere ? [elsewhere] : []),
  ];
  if (suggestions.length > 0 && !elsewhere) {
    hints.push(`did you mean ${suggestions.join(", ")}?`);
  }
  return new DomainError({
    code: Code.NotFound,
    reason: "TOOL_NOT_FOUND",
    message: `Tool "${name}" does not exist${where}: ${hints.join("; ") || "search for it with other words"}`,
    resource: { type: "tool", name },
    metadata: {
      ...(suggestions.length > 0 ? { suggestions: suggestions.join(",") } : {}),
      ...(problem ? { problem: problem.reason } : {}),
    },
  });
}

/** What kept the tool, or any tool, of the service that the name begins with from being learnt. */
function problemOf(catalogue: Catalogue, name: string, place: Place): StoredProblem | undefined {
  const dot = name.indexOf(".");
  const rest = name.slice(dot + 1);
  const problems = catalogue
    .versions(name.slice(0, Math.max(0, dot)), place.environment)
    .filter((service) => !place.version || service.version === place.version)
    .flatMap((service) => service.problems)
    // That the tools are old is said by why no newer ones are known.
    .filter(({ reason }) => reason !== "STALE_TOOLS");
  return (
    problems.find(({ tool }) => tool === rest || tool.endsWith(`.${rest}`)) ??
    problems.find(({ tool }) => tool === "")
  );
}

/** The other versions, or else the other environments, in which there is such a tool, or at least its service. */
function whereElse(catalogue: Catalogue, name: string, { environment, version }: Place): string | undefined {
  const named = catalogue.versions(name.slice(0, Math.max(0, name.indexOf("."))), environment);
  const versions = new Set<string>();
  const environments = new Set<string>();
  for (const service of catalogue.offering(lastSegment(name))) {
    if (offers(service, name)) {
      environments.add(service.environment);
      if (version && service.environment === environment) {
        for (const other of catalogue.versions(service.name, environment)) {
          if (offers(other, name)) {
            versions.add(other.version);
          }
        }
      }
    }
    if (versions.size >= MAX_NAMED) {
      break;
    }
  }
  if (versions.size === 0 && version && named.every((service) => service.version !== version)) {
    for (const service of named) {
      versions.add(service.version);
    }
  }
  environments.delete(environment);
  if (versions.size > 0) {
    return `registered versions are ${[...versions].slice(0, MAX_NAMED).join(", ")}`;
  }
  return environments.size > 0
    ? `it is registered in environment ${[...environments].slice(0, MAX_NAMED).join(", ")}`
    : undefined;
}

function offers({ name: service, tools }: CatalogueService, name: string): boolean {
  if (!tools) {
    return false;
  }
  return (
    tools.endingWith(name).length > 0 ||
    (name.startsWith(`${service}.`) && tools.endingWith(name.slice(service.length + 1)).length > 0)
  );
}
