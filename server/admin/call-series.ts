import type { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { LatencyHistogram } from "./latency-histogram.ts";

/** What is counted about calls of one kind. Only grows, except `inFlight`. */
export class CallSeries {
  /** Of calls that ended; of unary ones only where streams would be mixed with them. */
  readonly latency = new LatencyHistogram();
  /** Ended calls by code, such as `ok` or `not_found`. */
  readonly codes = new Map<string, number>();
  /** Of calls of tools, those that succeeded by where their results came from. */
  readonly sources = new Map<ResultSource, number>();
  inFlight = 0;
  ended = 0;
  /** Attempts beyond the first. */
  retries = 0;
  /** Attempts that were made because the one before took long. */
  hedges = 0;

  end(code: string): void {
    this.ended++;
    this.codes.set(code, (this.codes.get(code) ?? 0) + 1);
  }

  count(code: string): number {
    return this.codes.get(code) ?? 0;
  }

  mark(): SeriesMark {
    return {
      latency: this.latency.copy(),
      ended: this.ended,
      succeeded: this.count("ok"),
      left: this.count("canceled"),
      retries: this.retries,
    };
  }
}

/** A series as it was at one moment. */
export interface SeriesMark {
  readonly latency: LatencyHistogram;
  readonly ended: number;
  readonly succeeded: number;
  /** Calls whose callers left: neither a success nor a failure. */
  readonly left: number;
  readonly retries: number;
}
