import type { FinishedCall, Gate } from "@toolplane/framework";
import { CallSeries } from "./call-series.ts";

/** Counts the RPCs that the server answers. */
export interface InboundMeter {
  /** To be the first of the server's gates: a call begins. */
  readonly gate: Gate;
  /** To be the server's `onCall`: a call is over. */
  readonly onCall: (call: FinishedCall) => void;
  /** All RPCs; latencies of unary ones only, since a watch takes as long as it is watched. */
  readonly total: CallSeries;
  methods(): Iterable<InboundMethod>;
  /**
   * The methods whose calls ran at some time since `forgetEnded` was last called, those with most calls first: a call
   * that holds everything up is over before anyone else has a turn.
   */
  active(limit: number): string[];
  forgetEnded(): void;
}

export interface InboundMethod {
  /** `package.Service/Method`. */
  readonly method: string;
  readonly inFlight: number;
  readonly protocols: ReadonlyMap<FinishedCall["protocol"], CallSeries>;
}

/** What is known about a method. There are as many as the server has methods. */
interface Entry {
  readonly method: string;
  readonly unary: boolean;
  readonly protocols: Map<FinishedCall["protocol"], CallSeries>;
  inFlight: number;
  /** Calls that ended in the period `period`. */
  ended: number;
  period: number;
}

export function createInboundMeter(): InboundMeter {
  const total = new CallSeries();
  const entries = new Map<string, Entry>();
  let period = 0;

  function entryOf(method: string, unary: boolean): Entry {
    let entry = entries.get(method);
    if (entry === undefined) {
      entry = { method, unary, protocols: new Map(), inFlight: 0, ended: 0, period };
      entries.set(method, entry);
    }
    return entry;
  }

  const calls = (entry: Entry) => entry.inFlight + (entry.period === period ? entry.ended : 0);

  return {
    total,
    gate(_, context) {
      const { service, method } = context;
      entryOf(`${service.typeName}/${method.name}`, method.methodKind === "unary").inFlight++;
      total.inFlight++;
    },
    onCall({ method, protocol, code, durationMs }) {
      const entry = entryOf(method, true);
      let series = entry.protocols.get(protocol);
      if (series === undefined) {
        series = new CallSeries();
        entry.protocols.set(protocol, series);
      }
      entry.inFlight--;
      total.inFlight--;
      entry.ended = entry.period === period ? entry.ended + 1 : 1;
      entry.period = period;
      series.end(code);
      series.latency.record(durationMs);
      total.end(code);
      if (entry.unary) {
        total.latency.record(durationMs);
      }
    },
    methods: () => entries.values(),
    active: (limit) =>
      [...entries.values()]
        .filter((entry) => calls(entry) > 0)
        .sort((a, b) => calls(b) - calls(a))
        .slice(0, limit)
        .map(({ method }) => method),
    forgetEnded() {
      period++;
    },
  };
}
