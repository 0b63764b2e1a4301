import type { ReportMistake } from "./mistakes.ts";

/** A value that moves between two others. */
export interface Range {
  readonly initial: number;
  readonly min: number;
  readonly max: number;
}

/** Fills in what is not given, which is 0: with the default, or with what comes closest to it beside what is given. */
export function resolveRange(given: Range, defaults: Range, field: string, report: ReportMistake): Range {
  const max = given.max || Math.max(defaults.max, given.min, given.initial);
  const min = given.min || Math.min(defaults.min, max, given.initial || max);
  const initial = given.initial || Math.min(Math.max(defaults.initial, min), max);
  if (min > max) {
    report(`${field}.min`, `must not be above max, which is ${max}`);
  } else if (initial < min || initial > max) {
    report(`${field}.initial`, `must be from min to max, which are ${min} and ${max}`);
  }
  return { initial, min, max };
}

/**
 * The first and the longest of times that grow, in milliseconds. What is not given is the default, or as much as what is
 * given allows.
 */
export function resolveGrowth(
  [firstMs, longestMs]: readonly [number | undefined, number | undefined],
  [defaultFirstMs, defaultLongestMs]: readonly [number, number],
  [firstField, longestField]: readonly [string, string],
  report: ReportMistake,
): readonly [firstMs: number, longestMs: number] {
  const longest = longestMs ?? Math.max(defaultLongestMs, firstMs ?? 0);
  const first = firstMs ?? Math.min(defaultFirstMs, longest);
  if (first > longest) {
    report(longestField, `must not be shorter than ${firstField}, which is ${first / 1_000} s`);
  }
  return [first, longest];
}
