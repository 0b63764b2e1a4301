import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";

/** A duration in milliseconds, or `fallback` where none is set. */
export function milliseconds(duration: Duration | undefined, fallback: number): number {
  return duration === undefined ? fallback : Number(duration.seconds) * 1_000 + duration.nanos / 1e6;
}

/** Milliseconds as a Duration. Unlike `durationFromMs` it takes fractions, which have to become whole nanoseconds. */
export function toDuration(ms: number): Duration {
  const nanos = Math.round(ms * 1e6);
  return create(DurationSchema, { seconds: BigInt(Math.floor(nanos / 1e9)), nanos: nanos % 1e9 });
}

/** A duration in milliseconds; undefined where there is none. */
export function optionalMilliseconds(duration: Duration | undefined): number | undefined {
  return duration && milliseconds(duration, 0);
}

/** A time in milliseconds since 1970. `timestampFromMs` takes no fractions. */
export function toTimestamp(ms: number): Timestamp {
  return timestampFromMs(Math.round(ms));
}
