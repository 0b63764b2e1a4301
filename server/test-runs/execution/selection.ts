import { realpath } from "node:fs/promises";
import { isAbsolute, join, sep } from "node:path";
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
    ...tags.map((tag, index) =>
      tag.includes("\0") ? violation(`selection.tags[${index}]`, "must not hold a NUL character") : undefined,
    ),
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
  refuseForeignFiles(tests, failedInRun === "" ? "selection.test_ids" : "selection.failed_in_run");
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
  if (!staysBelow(file)) {
    return violation(field, BELOW);
  }
  // Patterns, and packages of Go, are the runner's to look for.
  const isPattern = runner !== "go-test" && /[*?[{]/.test(file);
  if (isPattern) {
    return mayClimb(file)
      ? violation(field, "must be a pattern without backslashes, and in which no folder can come to be `..`")
      : undefined;
  }
  try {
    const [root, path] = await Promise.all([realpath(directory), realpath(join(directory, file))]);
    return path === root || path.startsWith(root + sep) ? undefined : violation(field, BELOW);
  } catch {
    return runner === "go-test"
      ? undefined
      : violation(field, `${JSON.stringify(file)} does not exist in project "${name}"`);
  }
}

const BELOW = "must be relative to the project's root and stay below it";

/** Whether a path as it is written is relative, and leads to no folder above. */
function staysBelow(file: string): boolean {
  return !(
    isAbsolute(file) ||
    /^[a-zA-Z]:/.test(file) ||
    file.split(/[/\\]/).includes("..") ||
    file.includes("\0")
  );
}

/**
 * Whether a pattern may come to name the folder above, as `{..,a}/b`, `{.,a}{.,b}/c` and `.\./c` do. It cannot where every
 * dot has a letter or an asterisk beside it, which stays beside it whatever becomes of the braces.
 */
function mayClimb(pattern: string): boolean {
  const dots = pattern.replace(/^\.\//, "").matchAll(/(?<![\p{L}\p{N}_*-])\.(?![\p{L}\p{N}_*-])/gu);
  return pattern.includes("\\") || !dots.next().done;
}

/** The expressions of pytest and Go are checked by these. */
function patternMistake(pattern: string, { runner }: TestProjectSettings): FieldViolation | undefined {
  if (pattern.includes("\0")) {
    return violation("selection.name_pattern", "must not hold a NUL character");
  }
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

/** Whoever reports results says which files their tests are in: they are believed no more than a selection of files. */
function refuseForeignFiles(tests: readonly TestIdentity[], field: string): void {
  const foreign = tests.find(({ file }) => file.startsWith("-") || !staysBelow(file));
  if (foreign !== undefined) {
    throw invalidArgument([
      violation(field, `means a test of ${JSON.stringify(foreign.file)}, and files ${BELOW}`),
    ]);
  }
}

function violation(field: string, description: string): FieldViolation {
  return { field, description };
}
