import { type Metric, Registry, type RegistryContentType } from "prom-client";

/** Metrics of one name. */
export interface MetricFamily {
  /** Of a counter with `_total`. */
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly samples: readonly MetricSample[];
}

export interface MetricSample {
  /** The family's name, with `_bucket`, `_sum` or `_count` where that is a histogram. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Metrics as text, in the format of Prometheus 0.0.4 or of OpenMetrics 1.0. */
export async function expose(
  families: readonly MetricFamily[],
  accept: string | undefined,
): Promise<{ readonly contentType: RegistryContentType; readonly text: string }> {
  const contentType = accept?.includes("application/openmetrics-text")
    ? Registry.OPENMETRICS_CONTENT_TYPE
    : Registry.PROMETHEUS_CONTENT_TYPE;
  // One for each time: a registry has one format, and changes the names of its counters to fit it.
  const registry = new Registry<RegistryContentType>();
  registry.setContentType(contentType);
  for (const family of families) {
    registry.registerMetric(asMetric(family, contentType));
  }
  return { contentType, text: await registry.metrics() };
}

/**
 * A registry writes whatever has a name and can be read. Its own counters and histograms would have to look up labels
 * with every call that is counted; these have counted already.
 */
function asMetric({ name, help, type, samples }: MetricFamily, contentType: RegistryContentType): Metric {
  const isOpenMetricsCounter = type === "counter" && contentType === Registry.OPENMETRICS_CONTENT_TYPE;
  const family = isOpenMetricsCounter ? name.replace(/_total$/, "") : name;
  const values = samples.map((sample) => ({
    labels: sample.labels,
    value: sample.value,
    // Of an OpenMetrics counter the registry makes the sample's name itself.
    metricName: isOpenMetricsCounter ? family : sample.name,
  }));
  const metric = { name: family, get: async () => ({ name: family, help, type, values, aggregator: "sum" }) };
  // Nothing else of a metric is used; the type names the library's classes only.
  return metric as unknown as Metric;
}
