import { compareText, compareVersions } from "./version-order.ts";

export const DEFAULT_ENVIRONMENT = "default";
export const DEFAULT_VERSION = "0.0.0";

/** What identifies a service. */
export interface ServiceKey {
  readonly name: string;
  readonly environment: string;
  readonly version: string;
}

/** The key as one string. None of its parts can contain the separator. */
export function keyText({ name, environment, version }: ServiceKey): string {
  return `${name}/${environment}/${version}`;
}

/** The order of services in listings: by name, environment and version. */
export function compareKeys(left: ServiceKey, right: ServiceKey): number {
  return (
    compareText(left.name, right.name) ||
    compareText(left.environment, right.environment) ||
    compareVersions(left.version, right.version)
  );
}

/** For people: `weather 1.2.0`, with the environment where it is not the default. */
export function describeKey({ name, environment, version }: ServiceKey): string {
  return environment === DEFAULT_ENVIRONMENT
    ? `${name} ${version}`
    : `${name} ${version} in environment ${environment}`;
}
