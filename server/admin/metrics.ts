import type { Clock, HttpHandler } from "@toolplane/framework";
import { expose, type MetricFamily } from "./exposition.ts";
import { counter, inboundFamilies, outboundFamilies } from "./families.ts";
import type { InboundMeter } from "./inbound.ts";
import type { OutboundMeter } from "./outbound.ts";
import { policyFamilies } from "./policy-families.ts";
import { openRunFamilies, runFamilies } from "./run-families.ts";
import type { Runtime } from "./runtime.ts";
import { runtimeFamilies } from "./runtime-families.ts";
import type { AdminSources, RunSource } from "./sources.ts";

export interface Metrics {
  /** Every metric as it is now, by name. Without what the database does not tell in time. */
  read(): Promise<MetricFamily[]>;
  /** Serves them at `/metrics`. */
  readonly http: HttpHandler;
}

export interface MetricsOptions {
  readonly inbound: InboundMeter;
  readonly outbound: OutboundMeter;
  readonly runtime: Runtime;
  readonly sources: AdminSources;
  /** How often breakers came into each state. */
  readonly breakerTransitions: ReadonlyMap<string, number>;
  readonly clock: Clock;
}

/** What is known without the database is to be seen also while that is away. */
const DATABASE_TIMEOUT_MS = 1_000;

/**
 * Everything is counted where it happens, in plain numbers; metrics are made of them when someone asks.
 */
export function createMetrics(options: MetricsOptions): Metrics {
  const { inbound, outbound, runtime, sources, breakerTransitions, clock } = options;

  async function read(): Promise<MetricFamily[]> {
    const open = await readOpenRuns(sources.runs, clock);
    return [
      ...inboundFamilies(inbound),
      ...outboundFamilies(outbound),
      counter(
        "toolplane_breaker_transitions_total",
        "How often breakers came into a state.",
        [...breakerTransitions].map(([to, count]) => [{ to }, count] as const),
      ),
      ...policyFamilies(sources),
      ...(sources.runs ? runFamilies(sources.runs.stats()) : []),
      ...(open ? openRunFamilies(open) : []),
      ...runtimeFamilies(runtime),
    ].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  return {
    read,
    async http(request, response) {
      const path = (request.url ?? "").split("?", 1)[0];
      if (path !== "/metrics") {
        return false;
      }
      if (request.method !== "GET" && request.method !== "HEAD") {
        response.statusCode = 405;
        response.setHeader("allow", "GET, HEAD");
        response.end();
        return true;
      }
      const { contentType, text } = await expose(await read(), request.headers.accept);
      const body = Buffer.from(text);
      response.setHeader("content-type", contentType);
      response.setHeader("content-length", body.byteLength);
      response.setHeader("cache-control", "no-store");
      // Node leaves the body out for HEAD.
      response.end(body);
      return true;
    },
  };
}

async function readOpenRuns(runs: RunSource | undefined, clock: Clock) {
  const late = Promise.withResolvers<undefined>();
  const stopTimer = clock.after(DATABASE_TIMEOUT_MS, () => late.resolve(undefined));
  try {
    return await Promise.race([runs?.open(), late.promise]);
  } catch {
    return undefined;
  } finally {
    stopTimer();
  }
}
