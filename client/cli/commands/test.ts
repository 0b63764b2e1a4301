import { type Command, Option } from "commander";
import { collect } from "../input/pairs.ts";
import { examples, type Run } from "./run.ts";
import { addTestReportCommands } from "./test-report.ts";

export interface TestRunOptions {
  readonly env?: string;
  readonly file?: readonly string[];
  readonly name?: string;
  readonly tag?: readonly string[];
  readonly failedIn?: string;
  readonly test?: readonly string[];
  readonly coverage?: boolean;
  readonly label?: readonly string[];
  readonly detach?: boolean;
}

export interface TestRerunOptions {
  readonly failed?: boolean;
  readonly detach?: boolean;
}

export interface TestWatchOptions {
  readonly output?: boolean;
}

/** Which runs a run named `latest` is taken from. */
export interface RunChoiceOptions {
  readonly project?: string;
}

export interface TestListOptions {
  readonly env?: string;
  readonly branch?: string;
  readonly commit?: string;
  readonly state?: readonly string[];
  readonly label?: readonly string[];
  readonly limit: string;
}

export interface TestShowOptions extends RunChoiceOptions {
  readonly status?: readonly string[];
  readonly file?: string;
  readonly name?: string;
  readonly all?: boolean;
  readonly limit: string;
}

export interface TestHistoryOptions {
  readonly env?: string;
  readonly branch?: string;
  readonly runs: string;
}

export interface TestCoverageOptions extends RunChoiceOptions {
  readonly file?: string;
  readonly limit: string;
}

export interface TestCompareOptions extends RunChoiceOptions {
  readonly runs: string;
  readonly markdown?: boolean;
  readonly limit: string;
}

export interface TestExportOptions extends RunChoiceOptions {
  readonly format: string;
  readonly output?: string;
}

export const RUN_STATES = ["queued", "running", "passed", "failed", "cancelled", "error"] as const;
export const TEST_STATUSES = [
  "passed",
  "failed",
  "skipped",
  "todo",
  "expected-failure",
  "unexpected-pass",
  "error",
  "interrupted",
  "not-run",
] as const;
export const EXPORT_FORMATS = ["junit", "ctrf", "go-test"] as const;

const RUN = "the run: its id, latest, latest~1, or project@branch";

export function addTestCommands(program: Command, run: Run): void {
  const test = program
    .command("test")
    .summary("run, watch, report, keep and compare tests")
    .description(
      "Runs tests on the server, or reports those that run here; shows each result as it happens, keeps all, and " +
        "compares runs. Exit codes: 0 passed, 1 tests failed or regressed, 9 a run did not come to its end.",
    )
    .addHelpText(
      "after",
      examples(
        "toolplane test run shop",
        "toolplane test report -- npx vitest run",
        "toolplane test show latest --project shop",
        "toolplane test compare shop@main latest",
      ),
    );
  addRunCommands(test, run);
  addTestReportCommands(test, run);
  addListCommands(test, run);
  addCompareCommand(test, run);
  addCompareCommand(program, run, "toolplane compare");
}

function addRunCommands(test: Command, run: Run): void {
  test
    .command("run")
    .summary("run a project's tests on the server")
    .description(
      "Runs the tests of a configured project on the server and shows them live. Ctrl-C cancels the run; a second one " +
        "leaves at once. --timeout bounds the run.",
    )
    .argument("<project>", "the project")
    .option("--env <environment>", "one of its environments (the first)")
    .option("--file <file>", "only tests of this file or folder; repeatable", collect)
    .option("--name <pattern>", "only tests whose full name matches this regular expression")
    .option("--tag <tag>", "only tests with this tag; repeatable", collect)
    .option("--failed-in <run>", "only tests that failed in this run")
    .option("--test <id>", "only this test, by id; repeatable", collect)
    .option("--coverage", "measure coverage")
    .option("--label <key=value>", "a label to find the run by; repeatable", collect)
    .option("--detach", "print the run's id and leave it to itself")
    .addHelpText(
      "after",
      examples(
        "toolplane test run shop",
        "toolplane test run shop --file test/cart.test.ts --coverage",
        "toolplane test run shop --failed-in latest",
        "toolplane test watch $(toolplane test run shop --detach)",
      ),
    )
    .action(
      run(async (context, project: string, options: TestRunOptions) =>
        (await import("../actions/test-run/run.ts")).runTests(context, project, options),
      ),
    );

  test
    .command("watch")
    .summary("watch a run live")
    .description(
      "Shows a run live, from its beginning to its end: failures as they happen, a bar, and what runs now. " +
        "In a pipe: lines of text, or with --json every event. Leaving does not stop the run.",
    )
    .argument("<run>", RUN)
    .option("--project <project>", "the project that latest is taken from")
    .option("--output", "show what the runner and the tests write as well")
    .addHelpText(
      "after",
      examples(
        "toolplane test watch latest",
        "toolplane test watch 0197b5 --output",
        "toolplane test watch latest --project shop --json | jq .testEnded",
      ),
    )
    .action(
      run(async (context, runName: string, options: TestWatchOptions & RunChoiceOptions) =>
        (await import("../actions/test-run/watch.ts")).watchTests(context, runName, options),
      ),
    );

  test
    .command("rerun")
    .summary("run tests again")
    .description("Runs tests again as in an earlier run of the server, or only those that failed in it.")
    .argument("<run>", RUN)
    .option("--failed", "only the tests that failed")
    .option("--project <project>", "the project that latest is taken from")
    .option("--detach", "print the run's id and leave it to itself")
    .addHelpText("after", examples("toolplane test rerun latest --failed", "toolplane test rerun 0197b5"))
    .action(
      run(async (context, runName: string, options: TestRerunOptions & RunChoiceOptions) =>
        (await import("../actions/test-run/run.ts")).rerunTests(context, runName, options),
      ),
    );

  test
    .command("cancel")
    .summary("stop a run")
    .description("Stops a run: its runner with all that it has started, or the reporter at its next report.")
    .argument("<run>", RUN)
    .option("--project <project>", "the project that latest is taken from")
    .option("--message <text>", "why, for those who watch")
    .addHelpText("after", examples("toolplane test cancel latest --message 'wrong branch'"))
    .action(
      run(async (context, runName: string, options: RunChoiceOptions & { readonly message?: string }) =>
        (await import("../actions/test-run/cancel.ts")).cancelTests(context, runName, options),
      ),
    );
}

function addListCommands(test: Command, run: Run): void {
  test
    .command("projects")
    .summary("list projects")
    .description("Lists projects: those that the server can run, and those with runs.")
    .option("--limit <n>", "list at most so many; 0 means all", "100")
    .addHelpText("after", examples("toolplane test projects"))
    .action(
      run(async (context, options: { readonly limit: string }) =>
        (await import("../actions/test-run/list.ts")).listProjects(context, options),
      ),
    );

  test
    .command("list")
    .summary("list runs")
    .description("Lists runs, the newest first.")
    .argument("[project]", "only of this project")
    .option("--env <environment>", "only in this environment")
    .option("--branch <branch>", "only of this branch")
    .option("--commit <commit>", "only of this commit")
    .addOption(
      new Option("--state <state>", "only in this state; repeatable").choices(RUN_STATES).argParser(collect),
    )
    .option("--label <key=value>", "only with this label; repeatable", collect)
    .option("--limit <n>", "list at most so many; 0 means all", "20")
    .addHelpText(
      "after",
      examples(
        "toolplane test list shop --branch main",
        "toolplane test list --state failed --json | jq -r '.runs[].id'",
      ),
    )
    .action(
      run(async (context, project: string | undefined, options: TestListOptions) =>
        (await import("../actions/test-run/list.ts")).listRuns(context, project, options),
      ),
    );

  test
    .command("show")
    .summary("show a run and its failures")
    .description("Shows a run with what failed in it, or with the results that the options choose.")
    .argument("<run>", RUN)
    .option("--project <project>", "the project that latest is taken from")
    .addOption(
      new Option("--status <status>", "only results with this status; repeatable")
        .choices(TEST_STATUSES)
        .argParser(collect),
    )
    .option("--file <prefix>", "only tests of files that begin so")
    .option("--name <part>", "only tests with this in their name")
    .option("--all", "list all results, not only failures")
    .option("--limit <n>", "list at most so many; 0 means all", "50")
    .addHelpText(
      "after",
      examples(
        "toolplane test show latest --project shop",
        "toolplane test show 0197b5 --all --file test/cart",
        "toolplane test show latest --status skipped",
      ),
    )
    .action(
      run(async (context, runName: string, options: TestShowOptions) =>
        (await import("../actions/test-run/show.ts")).showRun(context, runName, options),
      ),
    );

  test
    .command("coverage")
    .summary("show what a run covers")
    .description("Shows what the tests of a run cover, file by file, with the lines that did not run.")
    .argument("<run>", RUN)
    .option("--project <project>", "the project that latest is taken from")
    .option("--file <prefix>", "only files that begin so")
    .option("--limit <n>", "list at most so many; 0 means all", "100")
    .addHelpText("after", examples("toolplane test coverage latest --file src/"))
    .action(
      run(async (context, runName: string, options: TestCoverageOptions) =>
        (await import("../actions/test-run/coverage.ts")).showCoverage(context, runName, options),
      ),
    );

  test
    .command("history")
    .summary("show flakiness, trends and changes")
    .description(
      "Shows what a project did over many runs: trends and flaky tests. With a test: its results, how flaky it is and " +
        "why that is said, and where its duration changed.",
    )
    .argument("<project>", "the project")
    .argument("[test]", "a test, by id or by a part of its full name that only it has")
    .option("--env <environment>", "only in this environment")
    .option("--branch <branch>", "only of this branch")
    .option("--runs <n>", "how many runs to look at", "100")
    .addHelpText(
      "after",
      examples(
        "toolplane test history shop --branch main",
        "toolplane test history shop 'cart > adds an item' --runs 500",
      ),
    )
    .action(
      run(async (context, project: string, name: string | undefined, options: TestHistoryOptions) =>
        (await import("../actions/test-run/history.ts")).showHistory(context, project, name, options),
      ),
    );

  test
    .command("export")
    .summary("write a run as JUnit XML, CTRF or go test JSON")
    .description("Writes a run as a report of a common format, to stdout or into a file.")
    .argument("<run>", RUN)
    .option("--project <project>", "the project that latest is taken from")
    .addOption(
      new Option("--format <format>", "the format").choices(EXPORT_FORMATS).default("junit", "junit"),
    )
    .option("--output <file>", "the file to write (stdout)")
    .addHelpText(
      "after",
      examples("toolplane test export latest > junit.xml", "toolplane test export 0197b5 --format ctrf"),
    )
    .action(
      run(async (context, runName: string, options: TestExportOptions) =>
        (await import("../actions/test-run/export.ts")).exportRun(context, runName, options),
      ),
    );
}

function addCompareCommand(parent: Command, run: Run, name = "toolplane test compare"): void {
  parent
    .command("compare")
    .summary("compare two test runs")
    .description(
      "Compares two test runs, or two sets of them: what broke, what was fixed, what became slower, and what to do " +
        "about it. Exit code 1: head is worse; 9: the two cannot be compared.",
    )
    .argument("<base>", "the earlier side: a run's id, several with commas, latest~1, or project@branch")
    .argument("[head]", "the later side, named alike", "latest")
    .option("--project <project>", "the project that latest is taken from (that of the other side)")
    .option("--runs <n>", "how many of the latest runs make up a side that is named by its branch", "1")
    .option("--markdown", "write Markdown, as for a pull request")
    .option("--limit <n>", "list at most so many changes", "50")
    .addHelpText(
      "after",
      examples(
        `${name} shop@main`,
        `${name} 0197b5 0197c2`,
        `${name} shop@main shop@faster-cart --runs 6`,
        `${name} shop@main latest --markdown > comment.md`,
      ),
    )
    .action(
      run(async (context, base: string, head: string, options: TestCompareOptions) =>
        (await import("../actions/test-run/compare.ts")).compareRuns(context, base, head, options),
      ),
    );
}
