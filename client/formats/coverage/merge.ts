import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type CoverageTotals,
  CoverageTotalsSchema,
  type FileCoverage,
  FileCoverageSchema,
  type LineCoverage,
  type LineCoverageSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";

/** The most often that a line can be said to have run, as the contract has 32 bits for it. */
const MAX_HITS = 2 ** 32 - 1;

/** How many lines of a file can be said to hold code, as in the contract. */
export const MAX_COVERED_LINES = 200_000;

/** A number of hits as the contract has it: a whole number from 0 to 2^32 - 1; what is no number is 0. */
export function clampHits(hits: number): number {
  return hits >= 1 ? Math.min(Math.floor(hits), MAX_HITS) : 0;
}

/**
 * Coverage of one file out of two measurements of it: of each line the larger number of hits counts, and so it is with
 * the numbers of branches and functions, as totals do not tell which ones were taken. Neither argument is changed.
 */
export function mergeCoverage(a: FileCoverage, b: FileCoverage): FileCoverage {
  return create(FileCoverageSchema, {
    file: a.file,
    lines: mergeLines(a.lines, b.lines),
    branchesTotal: Math.max(a.branchesTotal, b.branchesTotal),
    branchesCovered: Math.max(a.branchesCovered, b.branchesCovered),
    functionsTotal: Math.max(a.functionsTotal, b.functionsTotal),
    functionsCovered: Math.max(a.functionsCovered, b.functionsCovered),
  });
}

/** What files come to in numbers. */
export function coverageTotals(files: Iterable<FileCoverage>): CoverageTotals {
  const totals = {
    files: 0,
    lines: 0,
    linesCovered: 0,
    branches: 0,
    branchesCovered: 0,
    functions: 0,
    functionsCovered: 0,
  };
  for (const file of files) {
    totals.files++;
    totals.lines += file.lines.length;
    for (const { hits } of file.lines) {
      totals.linesCovered += hits > 0 ? 1 : 0;
    }
    totals.branches += file.branchesTotal;
    totals.branchesCovered += file.branchesCovered;
    totals.functions += file.functionsTotal;
    totals.functionsCovered += file.functionsCovered;
  }
  return create(CoverageTotalsSchema, {
    files: totals.files,
    linesTotal: BigInt(totals.lines),
    linesCovered: BigInt(totals.linesCovered),
    branchesTotal: BigInt(totals.branches),
    branchesCovered: BigInt(totals.branchesCovered),
    functionsTotal: BigInt(totals.functions),
    functionsCovered: BigInt(totals.functionsCovered),
  });
}

/**
 * What a report says of a file's lines: in order, each line once, at most as many as the contract allows. Lines below 1
 * do not exist and are left out.
 */
export function linesOf(hits: ReadonlyMap<number, number>): MessageInitShape<typeof LineCoverageSchema>[] {
  return [...hits]
    .filter(([line]) => Number.isInteger(line) && line >= 1 && line <= MAX_HITS)
    .sort(([a], [b]) => a - b)
    .slice(0, MAX_COVERED_LINES)
    .map(([line, count]) => ({ line, hits: clampHits(count) }));
}

/** Both lists are in order, and so is the result. */
function mergeLines(a: readonly LineCoverage[], b: readonly LineCoverage[]): LineCoverage[] {
  const merged: LineCoverage[] = [];
  let i = 0;
  let j = 0;
  while (merged.length < MAX_COVERED_LINES) {
    const left = a[i];
    const right = b[j];
    if (left === undefined && right === undefined) {
      break;
    }
    if (right === undefined || (left !== undefined && left.line < right.line)) {
      merged.push(left as LineCoverage); // One of the two is there.
      i++;
    } else if (left === undefined || right.line < left.line) {
      merged.push(right);
      j++;
    } else {
      merged.push(right.hits > left.hits ? right : left);
      i++;
      j++;
    }
  }
  return merged;
}
