import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { BreakerRefusal, BreakerSnapshot } from "@toolplane/framework/policies";
import type { ResolvedTool } from "../registry/registry.ts";

type Place = Pick<ResolvedTool, "service" | "environment" | "version">;

/** The breakers that watch over a call. */
export interface BreakerNames {
  readonly service: string;
  readonly method: string;
  instance(id: string): string;
}

/** `service/…`, `method/…` and `instance/…`, followed by service, environment, version and what is watched over. */
export function breakerNames(tool: Place & Pick<ResolvedTool, "name">): BreakerNames {
  const place = `${tool.service}/${tool.environment}/${tool.version}`;
  return {
    service: `service/${place}`,
    method: `method/${place}/${tool.name}`,
    instance: (id) => `instance/${place}/${id}`,
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
