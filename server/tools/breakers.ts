import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { type BreakerRefusal, type BreakerSnapshot, createByteLru } from "@toolplane/framework/policies";
import type { ResolvedTool } from "../registry/registry.ts";

type Place = Pick<ResolvedTool, "service" | "environment" | "version">;

/** The names of the breakers that watch over the calls of a tool. */
export interface BreakerNames {
  readonly service: string;
  readonly method: string;
  /** Those that a call has to pass whichever instance it goes to. */
  readonly both: readonly string[];
  instance(id: string): string;
}

/** Tools and instances whose names are remembered: they are needed for every call. */
const REMEMBERED_TOOLS = 10_000;
const REMEMBERED_INSTANCES = 1_000;

/** `service/…`, `method/…` and `instance/…`, followed by service, environment, version and what is watched over. */
export function breakerNames(tool: Place & Pick<ResolvedTool, "name">): BreakerNames {
  const place = `${tool.service}/${tool.environment}/${tool.version}`;
  const service = `service/${place}`;
  const method = `method/${place}/${tool.name}`;
  const instances = new Map<string, string>();
  return {
    service,
    method,
    both: [service, method],
    instance(id) {
      let name = instances.get(id);
      if (name === undefined) {
        if (instances.size >= REMEMBERED_INSTANCES) {
          instances.clear();
        }
        name = `instance/${place}/${id}`;
        instances.set(id, name);
      }
      return name;
    },
  };
}

/** Remembers names, those of one version of each tool. */
export function rememberBreakerNames(): typeof breakerNames {
  const known = createByteLru<{ readonly environment: string; readonly version: string } & BreakerNames>({
    maxEntries: REMEMBERED_TOOLS,
  });
  return (tool) => {
    const { name, environment, version } = tool;
    const found = known.get(name);
    if (found?.environment === environment && found.version === version) {
      return found;
    }
    const made = { environment, version, ...breakerNames(tool) };
    known.set(name, made);
    return made;
  };
}

/** What a breaker's name says it watches over. */
export interface BreakerPlace extends Place {
  readonly scope: "service" | "instance" | "method";
  readonly instanceId?: string;
  readonly tool?: string;
}

/** Undefined: no breaker has such a name. */
export function parseBreakerName(name: string): BreakerPlace | undefined {
  const [scope, service, environment, version, ...rest] = name.split("/");
  const subject = rest.join("/");
  if (!service || !environment || !version) {
    return undefined;
  }
  const place = { service, environment, version };
  switch (scope) {
    case "service":
      return subject ? undefined : { scope, ...place };
    case "instance":
      return subject ? { scope, ...place, instanceId: subject } : undefined;
    case "method":
      return subject ? { scope, ...place, tool: subject } : undefined;
    default:
      return undefined;
  }
}

export type NamedBreaker = BreakerSnapshot & BreakerPlace;

/** UNAVAILABLE: nothing was sent, because what the breaker watches over has kept failing. */
export function circuitOpen({ name, state, retryAfterMs }: BreakerRefusal): DomainError {
  const what = name.replace("/", " ");
  const why =
    state === "isolated"
      ? `an operator has isolated ${what}`
      : `${what} has kept failing${state === "half-open" ? ", and is being probed" : ""}`;
  return new DomainError({
    code: Code.Unavailable,
    reason: "CIRCUIT_OPEN",
    message: `Nothing was sent: ${why}`,
    metadata: { breaker: name, state },
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}
