import { Code } from "@connectrpc/connect";
import { DomainError, notFound } from "@toolplane/framework";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { type Catalogue, type CatalogueInstance, type CatalogueService, lastSegment } from "./catalogue.ts";
import { toolName } from "./messages.ts";
import { distanceWithin } from "./search/similar-terms.ts";
import { DEFAULT_ENVIRONMENT, describeKey, type ServiceKey } from "./service-key.ts";
import type { ToolSet } from "./tool-set.ts";
import { unknownTool } from "./unknown-tool.ts";

/** How many candidates an ambiguous name is answered with. */
const MAX_CANDIDATES = 10;

/** Services that resemble an unknown name: how many are suggested, and how many letters of the name may be wrong. */
const MAX_SIMILAR_SERVICES = 3;
const MAX_MISTAKES = 2;
const LETTERS_PER_MISTAKE = 3;

/** A tool in the catalogue. */
export interface ToolLocation {
  readonly service: CatalogueService;
  readonly tools: ToolSet;
  readonly index: number;
}

/** Where to look for a tool. Empty text counts as unset. */
export interface ToolScope {
  /** Unset: `default`. */
  readonly environment?: string | undefined;
  /** Unset: the highest version that offers the tool and has an instance to call. */
  readonly version?: string | undefined;
}

/** Names like `name`, best first. */
export type Suggest = (name: string, environment: string) => readonly string[];

/**
 * Finds the tool that a name means: its whole name, its service's name with an unambiguous dotted end of the rest, or
 * an unambiguous dotted end alone. The first of these that finds anything decides.
 *
 * Throws NOT_FOUND with suggestions, or INVALID_ARGUMENT `AMBIGUOUS_TOOL` with the candidates.
 */
export function findTool(
  catalogue: Catalogue,
  name: string,
  scope: ToolScope,
  suggest: Suggest,
): ToolLocation {
  const environment = scope.environment || DEFAULT_ENVIRONMENT;
  const dot = name.indexOf(".");
  if (dot > 0) {
    const versions = candidateVersions(catalogue.versions(name.slice(0, dot), environment), scope.version);
    const rest = name.slice(dot + 1);
    for (const service of versions) {
      const index = service.tools?.indexOf(rest) ?? -1;
      if (service.tools && index >= 0) {
        return { service, tools: service.tools, index };
      }
    }
    for (const service of versions) {
      const found = service.tools?.endingWith(rest) ?? [];
      if (service.tools && found.length > 0) {
        return onlyOne(name, environment, locations(service, service.tools, found));
      }
    }
  }
  const found = findBySuffix(catalogue, name, environment, scope.version);
  if (found.length > 0) {
    return onlyOne(name, environment, found);
  }
  throw unknownTool(catalogue, name, { environment, version: scope.version }, suggest(name, environment));
}

/** Every tool whose name ends with the suffix, in the version of its service that would be called. */
function findBySuffix(
  catalogue: Catalogue,
  suffix: string,
  environment: string,
  version: string | undefined,
): ToolLocation[] {
  const found: ToolLocation[] = [];
  const seen = new Set<string>();
  for (const { name, environment: offeredIn } of catalogue.offering(lastSegment(suffix))) {
    if (offeredIn !== environment || seen.has(name)) {
      continue;
    }
    seen.add(name);
    for (const service of candidateVersions(catalogue.versions(name, environment), version)) {
      const indexes = service.tools?.endingWith(suffix) ?? [];
      if (service.tools && indexes.length > 0) {
        found.push(...locations(service, service.tools, indexes));
        break;
      }
    }
  }
  return found;
}

/** The versions to look at, in order: those that can be called before the others, the highest first. */
function candidateVersions(
  versions: readonly CatalogueService[],
  version: string | undefined,
): readonly CatalogueService[] {
  if (version) {
    return versions.filter((service) => service.version === version);
  }
  if (versions.length < 2) {
    return versions;
  }
  return [
    ...versions.filter(hasCallableInstance),
    ...versions.filter((service) => !hasCallableInstance(service)),
  ];
}

function hasCallableInstance({ instances }: CatalogueService): boolean {
  return instances.some(({ health }) => health !== HealthStatus.UNHEALTHY);
}

/**
 * The instances to send calls to: the healthy ones with those not checked yet; when every check failed, all of them,
 * because a wrong check must not stop what may work.
 */
export function callableInstances({ instances }: CatalogueService): readonly CatalogueInstance[] {
  const healthy = instances.filter(({ health }) => health === HealthStatus.HEALTHY);
  const unchecked = instances.filter(({ health }) => health === HealthStatus.UNKNOWN);
  return healthy.length + unchecked.length > 0 ? [...healthy, ...unchecked] : instances;
}

/** Finds the service that a reference means. Throws NOT_FOUND. */
export function findService(
  catalogue: Catalogue,
  { name, environment, version }: ServiceKey,
): CatalogueService {
  const versions = catalogue.versions(name, environment || DEFAULT_ENVIRONMENT);
  const service = version ? versions.find((candidate) => candidate.version === version) : versions[0];
  if (!service) {
    const known = versions.map((candidate) => candidate.version).slice(0, MAX_CANDIDATES);
    throw notFound(
      "service",
      version ? describeKey({ name, environment: environment || DEFAULT_ENVIRONMENT, version }) : name,
      known.length > 0
        ? `registered versions are ${known.join(", ")}`
        : (elsewhere(catalogue, name) ?? likelyMeant(catalogue, name)),
    );
  }
  return service;
}

function elsewhere(catalogue: Catalogue, name: string): string | undefined {
  const environments = new Set<string>();
  for (const service of catalogue.services()) {
    if (service.name === name) {
      environments.add(service.environment);
    }
  }
  return environments.size > 0
    ? `it is registered in environment ${[...environments].join(", ")}`
    : undefined;
}

/** The services whose names are spelt nearly like this one, then those that contain it. */
function likelyMeant(catalogue: Catalogue, name: string): string | undefined {
  const wanted = name.toLowerCase();
  const mistakes = Math.min(MAX_MISTAKES, Math.floor(wanted.length / LETTERS_PER_MISTAKE));
  const spelt = new Set<string>();
  const containing = new Set<string>();
  for (const { name: candidate } of catalogue.services()) {
    const known = candidate.toLowerCase();
    if (Math.abs(known.length - wanted.length) <= mistakes && distanceWithin(known, wanted, mistakes)) {
      spelt.add(candidate);
    } else if (known.includes(wanted)) {
      containing.add(candidate);
    }
  }
  const names = [...spelt, ...containing].slice(0, MAX_SIMILAR_SERVICES);
  return names.length > 0 ? `did you mean ${names.join(", ")}?` : undefined;
}

function locations(service: CatalogueService, tools: ToolSet, indexes: readonly number[]): ToolLocation[] {
  return indexes.map((index) => ({ service, tools, index }));
}

function nameOf({ service, tools, index }: ToolLocation): string {
  return toolName(service, tools.names[index] ?? "");
}

function onlyOne(name: string, environment: string, found: readonly ToolLocation[]): ToolLocation {
  const [first, ...others] = found;
  if (first && others.length === 0) {
    return first;
  }
  const names = found.map(nameOf).sort();
  const shown = names.slice(0, MAX_CANDIDATES);
  const more = names.length > shown.length ? ` and ${names.length - shown.length} more` : "";
  throw new DomainError({
    code: Code.InvalidArgument,
    reason: "AMBIGUOUS_TOOL",
    message: `"${name}" can mean ${shown.join(", ")}${more}: use one of these names`,
    metadata: { tool: name, environment, candidates: shown.join(",") },
  });
}
