import { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { MetricFamily } from "./exposition.ts";
import type { InboundMeter } from "./inbound.ts";
import type { LatencyHistogram } from "./latency-histogram.ts";
import type { OutboundMeter } from "./outbound.ts";

type Labels = Readonly<Record<string, string>>;
type Values = Iterable<readonly [labels: Labels, value: number]>;

/** Ends of the buckets that Prometheus gets, in milliseconds: powers of two, where the histogram is exact. */
const BOUNDS_MS = Array.from({ length: 19 }, (_, index) => 2 ** (index - 2));

export function counter(name: string, help: string, values: Values | number): MetricFamily {
  return { name, help, type: "counter", samples: samplesOf(name, values) };
}

export function gauge(name: string, help: string, values: Values | number): MetricFamily {
  return { name, help, type: "gauge", samples: samplesOf(name, values) };
}

function samplesOf(name: string, values: Values | number): MetricFamily["samples"] {
  return Array.from(typeof values === "number" ? [[{}, values] as const] : values, ([labels, value]) => ({
    name,
    labels,
    value,
  }));
}

/** Of seconds, as is usual. */
function histogram(
  name: string,
  help: string,
  values: Iterable<readonly [Labels, LatencyHistogram]>,
): MetricFamily {
  const samples = Array.from(values, ([labels, latency]) => [
    ...latency.cumulative(BOUNDS_MS).map((value, index) => ({
      name: `${name}_bucket`,
      labels: { ...labels, le: String((BOUNDS_MS[index] ?? 0) / 1_000) },
      value,
    })),
    { name: `${name}_bucket`, labels: { ...labels, le: "+Inf" }, value: latency.count },
    { name: `${name}_sum`, labels, value: latency.sumMs / 1_000 },
    { name: `${name}_count`, labels, value: latency.count },
  ]).flat();
  return { name, help, type: "histogram", samples };
}

/** RPCs that the server answers. */
export function inboundFamilies(inbound: InboundMeter): MetricFamily[] {
  const methods = [...inbound.methods()];
  const series = methods.flatMap(({ method, protocols }) =>
    [...protocols].map(([protocol, calls]) => ({ labels: { method, protocol }, calls })),
  );
  return [
    counter(
      "toolplane_rpcs_total",
      "RPCs that have ended.",
      series.flatMap(({ labels, calls }) =>
        [...calls.codes].map(([code, count]) => [{ ...labels, code }, count] as const),
      ),
    ),
    histogram(
      "toolplane_rpc_duration_seconds",
      "How long RPCs took; streams are as long as they are watched.",
      series.map(({ labels, calls }) => [labels, calls.latency] as const),
    ),
    gauge(
      "toolplane_rpcs_in_flight",
      "RPCs that run now.",
      methods.map(({ method, inFlight }) => [{ method }, inFlight] as const),
    ),
  ];
}

/** Calls of tools. */
export function outboundFamilies(outbound: OutboundMeter): MetricFamily[] {
  const series = Array.from(outbound.services(), ({ service, environment, version, calls }) => ({
    labels: { service, environment, version },
    calls,
  }));
  return [
    counter(
      "toolplane_calls_total",
      "Calls of tools that have ended; of more services than fit, as the service other.",
      series.flatMap(({ labels, calls }) =>
        [...calls.codes].map(([code, count]) => [{ ...labels, code }, count] as const),
      ),
    ),
    histogram(
      "toolplane_call_duration_seconds",
      "How long calls of tools took, with all of their attempts.",
      series.map(({ labels, calls }) => [labels, calls.latency] as const),
    ),
    gauge(
      "toolplane_calls_in_flight",
      "Calls of tools that run now.",
      series.map(({ labels, calls }) => [labels, calls.inFlight] as const),
    ),
    counter(
      "toolplane_call_results_total",
      "Calls of tools that succeeded, by where their results came from.",
      series.flatMap(({ labels, calls }) =>
        [...calls.sources].map(
          ([source, count]) => [{ ...labels, source: ResultSource[source].toLowerCase() }, count] as const,
        ),
      ),
    ),
    counter(
      "toolplane_call_retries_total",
      "Attempts beyond the first.",
      series.map(({ labels, calls }) => [labels, calls.retries] as const),
    ),
    counter(
      "toolplane_call_hedges_total",
      "Attempts made beside one that took long.",
      series.map(({ labels, calls }) => [labels, calls.hedges] as const),
    ),
  ];
}
