/** A duration for people: `0.42 ms`, `12 ms`, `1.5 s`, `3.2 min`. */
export function durationText(ms: number): string {
  const size = Math.abs(ms);
  if (size < 1) return `${short(ms, 2)} ms`;
  if (size < 10) return `${short(ms, 1)} ms`;
  if (size < 999.5) return `${Math.round(ms)} ms`;
  if (size < 120_000) return `${short(ms / 1000, 1)} s`;
  return `${short(ms / 60_000, 1)} min`;
}

/** A change in percent, with its sign: `+25 %`. */
export function percentText(percent: number): string {
  return `${percent > 0 ? "+" : ""}${Math.abs(percent) < 10 ? short(percent, 1) : Math.round(percent)} %`;
}

/** `1 test`, `2 tests`, `1,200 tests`. */
export function countText(count: number, noun: string, plural = `${noun}s`): string {
  return `${count.toLocaleString("en")} ${count === 1 ? noun : plural}`;
}

function short(value: number, digits: number): string {
  return String(Number(value.toFixed(digits)));
}
