import type { ServiceImpl } from "@connectrpc/connect";
import { notFound } from "@toolplane/framework";
import type { TestHistory } from "@toolplane/gen/toolplane/testing/v1/history_pb.js";
import type { TestRunService } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { findTest } from "./find-test.ts";
import { projectHistory } from "./project-history.ts";
import type { HistoryResult, HistoryRun, HistorySource } from "./source.ts";
import { testHistory } from "./test-history.ts";

const DEFAULT_RUNS = 100;
const MAX_FLAKY_TESTS = 100;
/** Tests that are looked at closely; those that were unsteady most often. */
const MAX_UNSTEADY = 500;
/** Results that are loaded at once. */
const RESULTS_AT_ONCE = 20_000;
/** Of a flaky test in a project's history, so many results are told. Its own history has all. */
const ENTRIES_OF_FLAKY_TEST = 10;

type HistoryHandler = Pick<ServiceImpl<typeof TestRunService>, "getTestHistory">;

/** The handler of GetTestHistory. */
export function createHistorian({ source }: { readonly source: HistorySource }): HistoryHandler {
  return {
    async getTestHistory({ project, test, environment, branch, maxRuns }, { signal }) {
      const wanted = test === "" ? undefined : await findTest(source, project, test);
      const query = { project, environment, branch, maxRuns: maxRuns || DEFAULT_RUNS };
      const runs = await source.runs(query);
      if (wanted !== undefined) {
        const [identities, results] = await Promise.all([
          source.identities([wanted.testId]),
          source.results(numbersOf(runs), [wanted.testId]),
        ]);
        const value = testHistory(wanted, identities.get(wanted.testId), runs, results);
        return { history: { case: "test", value } };
      }
      if (runs.length === 0) {
        const filters = environment !== "" || branch !== "" ? " in this environment and branch" : "";
        throw notFound("test project", project, `there is no run of it that ended${filters}`);
      }
      const flaky = await flakyTests(source, project, runs, signal);
      return { history: { case: "project", value: projectHistory(project, runs, flaky) } };
    },
  };
}

function numbersOf(runs: readonly HistoryRun[]): number[] {
  return runs.map(({ number }) => number);
}

/** The worst first. Looks at tests in portions, so that memory does not grow with the number of runs. */
async function flakyTests(
  source: HistorySource,
  project: string,
  runs: readonly HistoryRun[],
  signal: AbortSignal,
): Promise<TestHistory[]> {
  const counted = runs.filter(({ excluded }) => !excluded);
  const unsteady = await source.unsteadyTests(numbersOf(counted), MAX_UNSTEADY);
  const portion = Math.max(1, Math.floor(RESULTS_AT_ONCE / Math.max(1, counted.length)));
  let worst: TestHistory[] = [];
  for (let start = 0; start < unsteady.length; start += portion) {
    signal.throwIfAborted();
    const histories = await historiesOf(source, project, counted, unsteady.slice(start, start + portion));
    worst = [...worst, ...histories.filter(({ flakiness }) => flakiness?.flaky)]
      .sort((a, b) => (b.flakiness?.score ?? 0) - (a.flakiness?.score ?? 0) || (a.testId < b.testId ? -1 : 1))
      .slice(0, MAX_FLAKY_TESTS);
  }
  return worst;
}

async function historiesOf(
  source: HistorySource,
  project: string,
  runs: readonly HistoryRun[],
  testIds: readonly string[],
): Promise<TestHistory[]> {
  const [known, identities, results] = await Promise.all([
    source.tests(project, testIds),
    source.identities(testIds),
    source.results(numbersOf(runs), testIds),
  ]);
  const byTest: ReadonlyMap<string, HistoryResult[]> = Map.groupBy(results, ({ testId }) => testId);
  return known.map((test) => {
    const history = testHistory(test, identities.get(test.testId), runs, byTest.get(test.testId) ?? []);
    return { ...history, entries: history.entries.slice(0, ENTRIES_OF_FLAKY_TEST) };
  });
}
