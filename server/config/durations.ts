import type { Duration } from "@bufbuild/protobuf/wkt";

/** A duration in milliseconds, or `fallback` where none is set. */
export function milliseconds(duration: Duration | undefined, fallback: number): number {
  return duration === undefined ? fallback : Number(duration.seconds) * 1_000 + duration.nanos / 1e6;
}
