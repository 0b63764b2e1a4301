import { stat } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import type { RunnerSelection } from "@toolplane/client/runners";
import { type FieldViolation, invalidArgument } from "@toolplane/framework";
import type { TestIdentity } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestSelection } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { TestProjectSettings } from "../../config/testing.ts";
import type { TestLookup } from "./test-lookup.ts";

/** More tests than a command line names. */
const MAX_TESTS = 10_000;

/** Looks up what a selection refers to, and checks it. Throws INVALID_ARGUMENT with the fields that are wrong. */
export async function resolveSelection(
  selection: TestSelection | undefined,
  project: TestProjectSettings,
  lookup: TestLookup,
): Promise<RunnerSelection> {
  if (selection === undefined) {
    return { files: [], namePattern: "", tags: [], tests: [] };
  }
  const { files, namePattern, tags, failedInRun, testIds } = selection;
  const mistakes = [
    ...(await Promise.all(
      files.map((file, index) => fileMistake(file, `selection.files[${index}]`, project)),
    )),
    patternMistake(namePattern, project),
    failedInRun !== "" && testIds.length > 0
      ? violation("selection.test_ids", "either these or failed_in_run, not both")
      : undefined,
  ].filter((mistake) => mistake !== undefined);
  if (mistakes.length > 0) {
    throw invalidArgument(mistakes);
  }
  const tests =
    failedInRun === ""
      ? await testsById(testIds, project, lookup)
      : await failedTests(failedInRun, project, lookup);
  return { files, namePattern, tags, tests };
}

async function fileMistake(
  file: string,
  field: string,
  { name, directory, runner }: TestProjectSettings,
): Promise<FieldViolation | undefined> {
  if (file.startsWith("-")) {
    return violation(field, "must not begin with -, which runners take for an option; write ./ before it");
  }
  if (
    isAbsolute(file) ||
    /^[a-zA-Z]:/.test(file) ||
    file.split(/[/\\]/).includes("..") ||
    file.includes("\0")
  ) {
    return violation(field, "must be relative to the project's root and stay below it");
  }
  // Patterns, and packages of Go, are the runner's to look for.
  if (runner === "go-test" || /[*?[{]/.test(file)) {
    return undefined;
  }
  try {
    await stat(join(directory, file));
    return undefined;
  } catch {
    return violation(field, `${JSON.stringify(file)} does not exist in project "${name}"`);
  }
}

/** The expressions of pytest and Go are checked by these. */
function patternMistake(pattern: string, { runner }: TestProjectSettings): FieldViolation | undefined {
  if (pattern === "" || runner === "pytest" || runner === "go-test") {
    return undefined;
  }
  try {
    new RegExp(pattern);
    return undefined;
  } catch (error) {
    return violation(
      "selection.name_pattern",
      `must be a regular expression: ${error instanceof Error ? error.message : error}`,
    );
  }
}

async function testsById(
  testIds: readonly string[],
  project: TestProjectSettings,
  lookup: TestLookup,
): Promise<TestIdentity[]> {
  if (testIds.length === 0) {
    return [];
  }
  const found = await lookup.byIds(project.name, testIds);
  const missing = testIds.flatMap((testId, index) =>
    found.has(testId)
      ? []
      : [
          violation(
            `selection.test_ids[${index}]`,
            `project "${project.name}" has no results of test ${testId}`,
          ),
        ],
  );
  if (missing.length > 0) {
    throw invalidArgument(missing.slice(0, 100));
  }
  return [...found.values()];
}

async function failedTests(
  runId: string,
  project: TestProjectSettings,
  lookup: TestLookup,
): Promise<TestIdentity[]> {
  const field = "selection.failed_in_run";
  const failed = await lookup.failedIn(runId, MAX_TESTS + 1);
  const mistake =
    failed.project !== project.name
      ? `is a run of project "${failed.project}", not of "${project.name}"`
      : failed.tests.length === 0
        ? "names a run in which no test failed: there is nothing to run again"
        : failed.tests.length > MAX_TESTS
          ? `names a run in which more than ${MAX_TESTS} tests failed: run all tests, or some files`
          : undefined;
  if (mistake !== undefined) {
    throw invalidArgument([violation(field, mistake)]);
  }
  return failed.tests;
}

function violation(field: string, description: string): FieldViolation {
  return { field, description };
}
