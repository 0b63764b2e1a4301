const BARS = "▁▂▃▄▅▆▇█";

/** Numbers as a line of bars, the highest as a full one. Zeros show as a flat line. */
export function sparkline(values: readonly number[]): string {
  const highest = Math.max(...values, 0);
  return values
    .map((value) => {
      const height = highest === 0 ? 0 : Math.round((Math.max(value, 0) / highest) * (BARS.length - 1));
      return BARS[height] ?? "";
    })
    .join("");
}
