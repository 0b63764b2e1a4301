import type { HealthCheck, Service, ServiceState } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Interruption, ServiceEvent } from "../../index.ts";
import { durationMs } from "../output/format.ts";

/** What the monitor knows. Changed by the functions below only. */
export interface MonitorState {
  readonly services: Map<string, MonitoredService>;
  /** The latest changes, newest first. */
  readonly log: LogEntry[];
  connection: Connection;
  /** Why the history of health checks could not be read. Undefined: it could. */
  latencyProblem: string | undefined;
}

export interface MonitoredService {
  readonly service: Service;
  /** How often it changed in each span of the last minutes, oldest first. */
  readonly changes: readonly number[];
  /** Latencies of its health checks in milliseconds, oldest first. */
  readonly latencies: readonly number[];
}

/** A change worth telling, such as a service that went down. */
export interface LogEntry {
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly service: string;
  readonly version: string;
  readonly environment: string;
  /** What it became. Undefined: it was removed. */
  readonly state: ServiceState | undefined;
}

export type Connection =
  /** Nothing was received yet. */
  | { readonly state: "connecting" }
  /** Everything shown is as it is now. */
  | { readonly state: "live" }
  /** What is shown may be old. */
  | { readonly state: "lost"; readonly interruption: Interruption };

/** The length of a span for which changes are counted, in milliseconds, and how many spans are kept. */
export const SPAN_MS = 10_000;
export const SPANS = 12;

const MAX_LOG = 50;

export function createMonitorState(): MonitorState {
  return { services: new Map(), log: [], connection: { state: "connecting" }, latencyProblem: undefined };
}

/** Takes in an event of the watch. */
export function applyEvent(state: MonitorState, { event }: ServiceEvent, now: number): void {
  // The services as they were when the watch began are not changes.
  const isChange = state.connection.state === "live";
  switch (event.case) {
    case "updated": {
      const key = keyOf(event.value);
      const earlier = state.services.get(key);
      const changes = [...(earlier?.changes ?? emptySpans())];
      if (isChange) changes[SPANS - 1] = (changes[SPANS - 1] ?? 0) + 1;
      state.services.set(key, { service: event.value, changes, latencies: earlier?.latencies ?? [] });
      const isKnown = isChange || earlier !== undefined;
      if (isKnown && earlier?.service.state !== event.value.state)
        tell(state, event.value, event.value.state, now);
      break;
    }
    case "removed":
      if (state.services.delete(keyOf(event.value))) tell(state, event.value, undefined, now);
      break;
    case "reset":
      state.services.clear();
      state.connection = { state: "connecting" };
      break;
    case "synced":
      state.connection = { state: "live" };
      break;
  }
}

/** Starts a new span for counting changes. */
export function nextSpan(state: MonitorState): void {
  for (const [key, monitored] of state.services) {
    state.services.set(key, { ...monitored, changes: [...monitored.changes.slice(1), 0] });
  }
}

/** Takes in the history of health checks, newest first. */
export function applyHealthChecks(state: MonitorState, checks: readonly HealthCheck[]): void {
  const byService = Map.groupBy(checks.toReversed(), ({ service, environment, version }) =>
    keyOf({ name: service, environment, version }),
  );
  for (const [key, own] of byService) {
    const monitored = state.services.get(key);
    if (monitored === undefined) continue;
    const latencies = own.flatMap(({ latency }) => (latency === undefined ? [] : [durationMs(latency)]));
    state.services.set(key, { ...monitored, latencies });
  }
}

function tell(
  state: MonitorState,
  { name, version, environment }: { name: string; version: string; environment: string },
  became: ServiceState | undefined,
  time: number,
): void {
  state.log.unshift({ time, service: name, version, environment, state: became });
  state.log.length = Math.min(state.log.length, MAX_LOG);
}

function keyOf({
  name,
  environment,
  version,
}: {
  name: string;
  environment: string;
  version: string;
}): string {
  return `${name} ${environment} ${version}`;
}

function emptySpans(): number[] {
  return new Array<number>(SPANS).fill(0);
}
