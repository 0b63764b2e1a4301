import { Code, type ServiceImpl } from "@connectrpc/connect";
import { renderMarkdown } from "@toolplane/client/comparison";
import { mergeCoverage } from "@toolplane/client/formats";
import { DomainError, type FieldViolation, invalidArgument, notFound } from "@toolplane/framework";
import type { FileCoverage, TestIdentity } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestRunService, TestRunSet } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import pLimit from "p-limit";
import type { RunResults } from "../run-results.ts";
import { compareRuns } from "./compare-runs.ts";
import type { RunSource } from "./run-source.ts";

/** Results of both sides together. At about 200 bytes each they stay in memory while they are compared. */
const MAX_RESULTS = 2_000_000;
/** A comparison may hold all these results: others wait. */
const AT_ONCE = 2;
const MAX_RUNS = 50;

type CompareHandler = Pick<ServiceImpl<typeof TestRunService>, "compareTestRuns">;

export interface ComparerOptions {
  readonly source: RunSource;
  /** Default 2,000,000. */
  readonly maxResults?: number;
}

/** The handler of CompareTestRuns. */
export function createComparer({ source, maxResults = MAX_RESULTS }: ComparerOptions): CompareHandler {
  const turns = pLimit(AT_ONCE);
  return {
    compareTestRuns: (request, { signal }) =>
      turns(async () => {
        signal.throwIfAborted();
        const { base, head } = await findRuns(source, request.base, request.head);
        const loader = createLoader(source, maxResults, signal);
        const baseRuns = await loader.load("base", base);
        const headRuns = await loader.load("head", head);
        const options = request.maxChanges > 0 ? { maxChanges: request.maxChanges } : {};
        const comparison = compareRuns(baseRuns, headRuns, options);
        return { comparison, markdown: request.markdown ? renderMarkdown(comparison) : "" };
      }),
  };
}

interface Side {
  readonly ids: readonly string[];
  /** Where an id came from, for errors. */
  readonly fields: readonly string[];
}

async function findRuns(
  source: RunSource,
  base: TestRunSet | undefined,
  head: TestRunSet | undefined,
): Promise<{ base: Side; head: Side }> {
  const violations = [...check("base", base), ...check("head", head)];
  if (violations.length > 0) {
    throw invalidArgument(violations);
  }
  return {
    base: await findSide(source, "base", base, head?.runIds ?? []),
    head: await findSide(source, "head", head, base?.runIds ?? []),
  };
}

function check(side: string, set: TestRunSet | undefined): FieldViolation[] {
  if (set === undefined || (set.runIds.length === 0 && set.latest === undefined)) {
    const description = "name runs in run_ids, or set latest to a filter of runs";
    return [{ field: side, description, reason: "RUNS_MISSING" }];
  }
  if (set.latest !== undefined && (set.latest.filter?.project ?? "") === "") {
    const description = "must name the project";
    return [{ field: `${side}.latest.filter.project`, description, reason: "PROJECT_MISSING" }];
  }
  return [];
}

/** Runs that were named, then the latest ones. What the other side names is not taken for the latest of this one. */
async function findSide(
  source: RunSource,
  name: string,
  set: TestRunSet | undefined,
  otherIds: readonly string[],
): Promise<Side> {
  const named = new Map((set?.runIds ?? []).map((id, index) => [id, `${name}.run_ids[${index}]`]));
  const filter = set?.latest?.filter;
  if (filter !== undefined) {
    const count = set?.latest?.count || 1;
    const latest = await source.latest(filter, count, otherIds);
    if (latest.length === 0 && named.size === 0) {
      throw noRuns(name, filter.project);
    }
    for (const id of latest) {
      if (!named.has(id)) {
        named.set(id, `${name}.latest`);
      }
    }
  }
  if (named.size > MAX_RUNS) {
    const description = `run_ids and latest together are ${named.size} runs; at most ${MAX_RUNS} can be compared`;
    throw invalidArgument([{ field: name, description, reason: "TOO_MANY_RUNS" }]);
  }
  return { ids: [...named.keys()], fields: [...named.values()] };
}

function noRuns(side: string, project: string): DomainError {
  return new DomainError({
    code: Code.NotFound,
    reason: "TEST_RUN_NOT_FOUND",
    message: `${side}.latest: project "${project}" has no run that ended and matches the filter; list its runs, or widen the filter`,
    resource: { type: "test run", name: project },
  });
}

/** Loads runs one after the other, and keeps what they have in common once. */
function createLoader(source: RunSource, maxResults: number, signal: AbortSignal) {
  const identities = new Map<string, TestIdentity>();
  let loaded = 0;

  function share(results: RunResults["results"]): RunResults["results"] {
    return results.map((result) => {
      const known = identities.get(result.testId);
      if (known === undefined) {
        identities.set(result.testId, result.test);
        return result;
      }
      return { ...result, test: known };
    });
  }

  return {
    async load(name: string, { ids, fields }: Side): Promise<RunResults[]> {
      const runs: RunResults[] = [];
      const coverage = new Map<string, FileCoverage>();
      for (const [index, id] of ids.entries()) {
        const run = await source.load(id);
        signal.throwIfAborted();
        if (run === undefined) {
          throw notFound("test run", id, `see ${fields[index] ?? name}; list the runs that there are`);
        }
        loaded += run.results.length;
        if (loaded > maxResults) {
          throw tooMuch(maxResults);
        }
        for (const [file, measured] of run.coverage ?? []) {
          const known = coverage.get(file);
          coverage.set(file, known ? mergeCoverage(known, measured) : measured);
        }
        runs.push({ run: run.run, results: share(run.results), coverage: undefined });
      }
      // The runs of a side count together: the first one carries what all of them cover.
      return runs.map((run, index) => (index === 0 && coverage.size > 0 ? { ...run, coverage } : run));
    },
  };
}

function tooMuch(maxResults: number): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "TOO_MANY_RESULTS",
    message: `The runs have more than ${maxResults.toLocaleString("en")} results together: compare fewer runs`,
  });
}
