import type { Clock } from "@toolplane/framework";
import type { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { CallSeries } from "./call-series.ts";
import { createSeriesTable, type Series } from "./series-table.ts";

/** A version of a service whose tools are called. */
export interface CalledService {
  readonly service: string;
  readonly environment: string;
  readonly version: string;
}

/** How a call of a tool ended. */
export interface EndedCall {
  /** `ok`, or the name of the error's code, such as `not_found`. */
  readonly code: string;
  /** From the start of the first attempt to the end of the last. */
  readonly durationMs: number;
  /** Attempts one after the other, the first included. Default: 1. */
  readonly attempts?: number;
  /** Attempts made beside a slow one. Default: 0. */
  readonly hedges?: number;
  /** Where its results came from, of a call that succeeded. */
  readonly source?: ResultSource | undefined;
}

/** A tool that is called. */
export interface CalledTool extends CalledService {
  /** Its whole name. */
  readonly name: string;
}

/** Counts the calls to backends. */
export interface OutboundMeter {
  /** A call begins; what is returned is to be called once, when it is over. */
  callStarted(tool: CalledTool): (call: EndedCall) => void;
  /** All calls. */
  readonly total: CallSeries;
  /** By version of a service; beyond 200 of them together, as the service `other`. */
  services(): Iterable<Series<CalledService>>;
  /** By tool; beyond 1,000 of them together, as the tool `other`. */
  tools(): Iterable<Series<CalledTool>>;
}

const MAX_SERVICES = 200;
const MAX_TOOLS = 1_000;

export function createOutboundMeter(clock: Clock): OutboundMeter {
  const total = new CallSeries();
  const nowhere = { environment: "", version: "" };
  const services = createSeriesTable<CalledService>(
    { service: "other", ...nowhere },
    { clock, maxSeries: MAX_SERVICES },
  );
  const tools = createSeriesTable<CalledTool>(
    { service: "other", name: "other", ...nowhere },
    { clock, maxSeries: MAX_TOOLS },
  );
  return {
    total,
    callStarted({ name, service, environment, version }) {
      const place = `${environment}\n${version}`;
      const all = [
        services.callsOf(`${service}\n${place}`, { service, environment, version }),
        tools.callsOf(`${name}\n${place}`, { name, service, environment, version }),
        total,
      ];
      for (const series of all) {
        series.inFlight++;
      }
      return (call) => {
        for (const series of all) {
          end(series, call);
        }
      };
    },
    services: () => services.all(),
    tools: () => tools.all(),
  };
}

function end(series: CallSeries, { code, durationMs, attempts = 1, hedges = 0, source }: EndedCall): void {
  series.inFlight--;
  series.end(code);
  series.latency.record(durationMs);
  series.retries += attempts - 1;
  series.hedges += hedges;
  if (source !== undefined) {
    series.sources.set(source, (series.sources.get(source) ?? 0) + 1);
  }
}
