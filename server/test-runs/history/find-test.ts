import { Code } from "@connectrpc/connect";
import { DomainError, invalidArgument } from "@toolplane/framework";
import { shinglesOf, similarityOf } from "../comparison/similarity.ts";
import type { HistorySource, KnownTest } from "./source.ts";

const TEST_ID = /^[0-9a-f]{32}$/;
/** Names that are told when a name fits several tests, or none. */
const MAX_CANDIDATES = 10;
const MAX_NEAR = 5;
/** Tests among which near names are looked for. */
const MAX_COMPARED = 5_000;

/** The one test that is meant. Throws INVALID_ARGUMENT where several could be, NOT_FOUND where none is. */
export async function findTest(source: HistorySource, project: string, wanted: string): Promise<KnownTest> {
  if (TEST_ID.test(wanted)) {
    const [test] = await source.tests(project, [wanted]);
    if (test !== undefined) {
      return test;
    }
  }
  const found = await source.testsNamed(project, wanted, MAX_CANDIDATES + 1);
  const equal = found.filter(({ name }) => name === wanted);
  const meant = equal.length > 0 ? equal : found;
  const [first, second] = meant;
  if (first === undefined) {
    throw noSuchTest(project, wanted, await nearNames(source, project, wanted));
  }
  if (second !== undefined) {
    throw ambiguous(wanted, meant);
  }
  return first;
}

function ambiguous(wanted: string, found: readonly KnownTest[]): DomainError {
  const shown = found.slice(0, MAX_CANDIDATES).map(describe);
  const more = found.length > MAX_CANDIDATES ? " and more" : "";
  const description = `${JSON.stringify(wanted)} fits several tests: ${shown.join(", ")}${more}; name one by its test_id, or by a part of its name that only it has`;
  return invalidArgument([{ field: "test", description, reason: "AMBIGUOUS_TEST" }]);
}

function noSuchTest(project: string, wanted: string, near: readonly KnownTest[]): DomainError {
  const hint =
    near.length === 0
      ? "it has no tests that ran to the end of a run"
      : `near names are ${near.map(describe).join(", ")}`;
  return new DomainError({
    code: Code.NotFound,
    reason: "TEST_NOT_FOUND",
    message: `Project "${project}" has no test ${JSON.stringify(wanted)}: ${hint}`,
    resource: { type: "test", name: wanted },
  });
}

const MAX_NAME_CHARS = 200;

function describe({ testId, file, name }: KnownTest): string {
  const short = name.length <= MAX_NAME_CHARS ? name : `${name.slice(0, MAX_NAME_CHARS)}…`;
  return `${JSON.stringify(short)} (${file === "" ? "" : `${file}, `}${testId})`;
}

async function nearNames(source: HistorySource, project: string, wanted: string): Promise<KnownTest[]> {
  const shingles = shinglesOf(wanted);
  const tests = await source.recentTests(project, MAX_COMPARED);
  return tests
    .map((test) => ({ test, similarity: similarityOf(shingles, shinglesOf(test.name)) }))
    .sort((a, b) => b.similarity - a.similarity)
    .slice(0, MAX_NEAR)
    .map(({ test }) => test);
}
