/** What is exposed under one name. */
export interface ExposedFamily {
  readonly type: string;
  readonly help: string;
  /** Values by the sample's name with its labels, as it is written. */
  readonly samples: Map<string, number>;
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;
const LABELS = /^(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"(?:,(?!$)|$))*$/;

/**
 * Reads metrics as strictly as https://prometheus.io/docs/instrumenting/exposition_formats/ and the specification of
 * OpenMetrics 1.0 allow, and checks what they promise about counters and histograms. Throws otherwise.
 */
export function parseExposition(
  text: string,
  format: "prometheus" | "openmetrics",
): Map<string, ExposedFamily> {
  const families = new Map<string, ExposedFamily>();
  const lines = text.split("\n");
  demand(lines.pop() === "", "the last line ends with a line feed");
  if (format === "openmetrics") {
    demand(lines.pop() === "# EOF", "OpenMetrics ends with # EOF");
  }
  let current: (ExposedFamily & { name: string }) | undefined;
  let help: readonly [name: string, text: string] | undefined;
  for (const line of lines) {
    if (line === "" && format === "prometheus") {
      continue;
    }
    const [, keyword, name = "", rest = ""] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (keyword === "HELP") {
      demand(NAME.test(name) && rest !== "", `HELP of a name: ${line}`);
      help = [name, rest];
    } else if (keyword === "TYPE") {
      demand(help?.[0] === name && !families.has(name), `TYPE once and after its HELP: ${line}`);
      demand(["counter", "gauge", "histogram"].includes(rest), `a type: ${line}`);
      current = { name, type: rest, help: help?.[1] ?? "", samples: new Map() };
      families.set(name, current);
    } else {
      const [, sample = "", labels = "", value = ""] = SAMPLE.exec(line) ?? [];
      demand(sample !== "" && LABELS.test(labels), `a sample: ${line}`);
      demand(current !== undefined && belongs(sample, current, format), `a sample below its TYPE: ${line}`);
      const key = `${sample}{${labels}}`;
      demand(current?.samples.has(key) === false, `a sample only once: ${line}`);
      const number = value === "+Inf" ? Number.POSITIVE_INFINITY : Number(value);
      demand(!Number.isNaN(number), `a number: ${line}`);
      demand(current?.type === "gauge" || number >= 0, `counters do not fall below 0: ${line}`);
      current?.samples.set(key, number);
    }
  }
  for (const [name, { type, samples }] of families) {
    if (type === "histogram") {
      checkHistogram(name, samples);
    }
  }
  return families;
}

function belongs(
  sample: string,
  { name, type }: { name: string; type: string },
  format: "prometheus" | "openmetrics",
): boolean {
  switch (type) {
    case "counter":
      // In the format of Prometheus the ending is usual; OpenMetrics takes it away from the family's name.
      return format === "openmetrics"
        ? sample === `${name}_total`
        : sample === name && name.endsWith("_total");
    case "histogram":
      return [`${name}_bucket`, `${name}_sum`, `${name}_count`].includes(sample);
    default:
      return sample === name;
  }
}

/** Buckets come in order, none has less than the one before, and the last has all. */
function checkHistogram(name: string, samples: ReadonlyMap<string, number>): void {
  const buckets = Map.groupBy(
    [...samples].filter(([key]) => key.startsWith(`${name}_bucket`)),
    ([key]) => key.replace(/,?le="[^"]*"/, "").slice(`${name}_bucket`.length),
  );
  for (const [labels, own] of buckets) {
    const bounds = own.map(([key]) => Number(/le="([^"]*)"/.exec(key)?.[1]?.replace("+Inf", "Infinity")));
    const counts = own.map(([, count]) => count);
    demand(isSorted(bounds) && bounds.at(-1) === Number.POSITIVE_INFINITY, `buckets up to +Inf: ${name}`);
    demand(isSorted(counts), `buckets hold what is in smaller ones too: ${name}`);
    demand(samples.get(`${name}_count${labels}`) === counts.at(-1), `+Inf holds all: ${name}`);
    demand(samples.has(`${name}_sum${labels}`), `a sum: ${name}`);
  }
}

function isSorted(numbers: readonly number[]): boolean {
  return numbers.every((number, index) => index === 0 || number >= (numbers[index - 1] ?? 0));
}

function demand(holds: boolean, what: string): void {
  if (!holds) {
    throw new Error(`expected ${what}`);
  }
}
