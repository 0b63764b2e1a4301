import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  CoverageComparisonSchema,
  FileCoverageChangeSchema,
  LineRangeSchema,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import type { CoverageTotalsSchema, FileCoverage } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { RunResults } from "../run-results.ts";

const MAX_FILES = 1_000;
/** Ranges that are told of one file and direction. */
const MAX_RANGES = 1_000;

/** A file as all runs of a side together cover it. */
interface MergedFile {
  /** Hits by line. */
  readonly lines: Map<number, number>;
  covered: number;
  branchesTotal: number;
  branchesCovered: number;
  functionsTotal: number;
  functionsCovered: number;
}

type Merged = ReadonlyMap<string, MergedFile>;
type Change = MessageInitShape<typeof FileCoverageChangeSchema> & { readonly lostLines: number };

/** Coverage of both sides; undefined where one has none. Of several runs, the larger number of hits of a line counts. */
export function compareCoverage(
  baseRuns: readonly RunResults[],
  headRuns: readonly RunResults[],
): MessageInitShape<typeof CoverageComparisonSchema> | undefined {
  const base = mergeCoverage(baseRuns);
  const head = mergeCoverage(headRuns);
  if (base === undefined || head === undefined) {
    return undefined;
  }
  const before = totalsOf(base);
  const after = totalsOf(head);
  const files = [...new Set([...base.keys(), ...head.keys()])]
    .flatMap((file) => fileChange(file, base.get(file), head.get(file)) ?? [])
    .sort((a, b) => b.lostLines - a.lostLines || percentLost(b) - percentLost(a) || byName(a, b))
    .slice(0, MAX_FILES)
    .map(({ lostLines: _, ...change }) => change);
  const branches = before.branchesTotal > 0n && after.branchesTotal > 0n;
  return {
    base: before,
    head: after,
    lineDelta:
      percent(after.linesCovered, after.linesTotal) - percent(before.linesCovered, before.linesTotal),
    ...(branches && {
      branchDelta:
        percent(after.branchesCovered, after.branchesTotal) -
        percent(before.branchesCovered, before.branchesTotal),
    }),
    files,
  };
}

function byName(a: Change, b: Change): number {
  return (a.file ?? "") < (b.file ?? "") ? -1 : 1;
}

/** How many points a file lost; a file that appears or vanishes lost none. */
function percentLost({ basePercent, headPercent }: Change): number {
  return basePercent === undefined || headPercent === undefined ? 0 : basePercent - headPercent;
}

function mergeCoverage(runs: readonly RunResults[]): Merged | undefined {
  const measured = runs.flatMap(({ coverage }) => coverage ?? []);
  if (measured.length === 0) {
    return undefined;
  }
  const merged = new Map<string, MergedFile>();
  for (const coverage of measured) {
    for (const [file, added] of coverage) {
      let target = merged.get(file);
      if (target === undefined) {
        target = emptyFile();
        merged.set(file, target);
      }
      mergeFile(target, added);
    }
  }
  return merged;
}

function emptyFile(): MergedFile {
  const none = { branchesTotal: 0, branchesCovered: 0, functionsTotal: 0, functionsCovered: 0 };
  return { lines: new Map(), covered: 0, ...none };
}

function mergeFile(target: MergedFile, added: FileCoverage): void {
  for (const { line, hits } of added.lines) {
    const before = target.lines.get(line);
    if (hits > 0 && !before) {
      target.covered++;
    }
    target.lines.set(line, Math.max(before ?? 0, hits));
  }
  // Which branches were taken nobody knows: of several runs, the one that took most counts.
  target.branchesTotal = Math.max(target.branchesTotal, added.branchesTotal);
  target.branchesCovered = Math.max(target.branchesCovered, added.branchesCovered);
  target.functionsTotal = Math.max(target.functionsTotal, added.functionsTotal);
  target.functionsCovered = Math.max(target.functionsCovered, added.functionsCovered);
}

function totalsOf(files: Merged) {
  const totals = {
    linesTotal: 0n,
    linesCovered: 0n,
    branchesTotal: 0n,
    branchesCovered: 0n,
    functionsTotal: 0n,
    functionsCovered: 0n,
    files: files.size,
  } satisfies MessageInitShape<typeof CoverageTotalsSchema>;
  for (const file of files.values()) {
    totals.linesTotal += BigInt(file.lines.size);
    totals.linesCovered += BigInt(file.covered);
    totals.branchesTotal += BigInt(file.branchesTotal);
    totals.branchesCovered += BigInt(file.branchesCovered);
    totals.functionsTotal += BigInt(file.functionsTotal);
    totals.functionsCovered += BigInt(file.functionsCovered);
  }
  return totals;
}

/** A side without lines has nothing that could have been covered. */
function percent(covered: bigint | number, total: bigint | number): number {
  return Number(total) === 0 ? 0 : (100 * Number(covered)) / Number(total);
}

function fileChange(
  file: string,
  base: MergedFile | undefined,
  head: MergedFile | undefined,
): Change | undefined {
  const lost = linesThatStopped(base, head);
  const gained = linesThatStopped(head, base);
  const basePercent = base && percent(base.covered, base.lines.size);
  const headPercent = head && percent(head.covered, head.lines.size);
  if (lost.length === 0 && gained.length === 0 && basePercent === headPercent) {
    return undefined;
  }
  return {
    file,
    ...(basePercent !== undefined && { basePercent }),
    ...(headPercent !== undefined && { headPercent }),
    lost: toRanges(lost),
    gained: toRanges(gained),
    lostLines: lost.length,
  };
}

/** Lines that ran on the first side, and hold code that did not run on the second. */
function linesThatStopped(first: MergedFile | undefined, second: MergedFile | undefined): number[] {
  if (first === undefined || second === undefined) {
    return [];
  }
  return Array.from(first.lines)
    .filter(([line, hits]) => hits > 0 && second.lines.get(line) === 0)
    .map(([line]) => line)
    .sort((a, b) => a - b);
}

/** Lines that follow each other, as ranges. */
function toRanges(lines: readonly number[]): MessageInitShape<typeof LineRangeSchema>[] {
  const ranges: { first: number; last: number }[] = [];
  for (const line of lines) {
    const current = ranges.at(-1);
    if (current?.last === line - 1) {
      current.last = line;
    } else {
      ranges.push({ first: line, last: line });
    }
  }
  return ranges.slice(0, MAX_RANGES);
}
