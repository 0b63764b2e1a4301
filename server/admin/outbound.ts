import type { Clock } from "@toolplane/framework";
import type { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { CallSeries } from "./call-series.ts";

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

/** Counts the calls to backends. */
export interface OutboundMeter {
  /** A call begins; what is returned is to be called once, when it is over. */
  callStarted(service: CalledService): (call: EndedCall) => void;
  /** All calls. */
  readonly total: CallSeries;
  services(): Iterable<OutboundSeries>;
}

export interface OutboundSeries extends CalledService {
  readonly calls: CallSeries;
}

/** More versions of services than these are counted together, as the service `other`. */
const MAX_SERIES = 200;
/** What was not called for so long gives up its place, in milliseconds. */
const IDLE_MS = 600_000;
/** How often places are looked for when there are none, in milliseconds. */
const SWEEP_MS = 60_000;

interface Entry extends OutboundSeries {
  lastUseAt: number;
}

export function createOutboundMeter(clock: Clock): OutboundMeter {
  const total = new CallSeries();
  const entries = new Map<string, Entry>();
  const other = createEntry({ service: "other", environment: "", version: "" });
  let nextSweepAt = 0;

  function entryOf(called: CalledService): Entry {
    const key = `${called.service}\n${called.environment}\n${called.version}`;
    let entry = entries.get(key);
    if (entry === undefined) {
      if (entries.size >= MAX_SERIES) {
        sweep();
      }
      if (entries.size >= MAX_SERIES) {
        return other;
      }
      entry = createEntry(called);
      entries.set(key, entry);
    }
    return entry;
  }

  function sweep(): void {
    const now = clock.monotonic();
    if (now < nextSweepAt) {
      return;
    }
    nextSweepAt = now + SWEEP_MS;
    for (const [key, { calls, lastUseAt }] of entries) {
      if (calls.inFlight === 0 && now - lastUseAt > IDLE_MS) {
        entries.delete(key);
      }
    }
  }

  return {
    total,
    callStarted(service) {
      const entry = entryOf(service);
      entry.calls.inFlight++;
      total.inFlight++;
      return (call) => {
        entry.lastUseAt = clock.monotonic();
        end(entry.calls, call);
        end(total, call);
      };
    },
    *services() {
      yield* entries.values();
      if (other.calls.ended + other.calls.inFlight > 0) {
        yield other;
      }
    },
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

function createEntry({ service, environment, version }: CalledService): Entry {
  return { service, environment, version, calls: new CallSeries(), lastUseAt: 0 };
}
