import { type Command, Option } from "commander";
import { collect } from "../input/pairs.ts";
import { examples, type Run } from "./run.ts";

/** Of a run that is made from here. */
export interface MadeRunOptions {
  readonly project?: string;
  readonly env?: string;
  readonly label?: readonly string[];
  readonly commit?: string;
  readonly branch?: string;
}

export interface TestReportOptions extends MadeRunOptions {
  readonly runner?: string;
  readonly junit?: readonly string[];
  readonly coverageFile?: readonly string[];
  readonly coverage?: boolean;
}

export interface TestImportOptions extends MadeRunOptions {
  readonly format?: string;
  readonly run?: string;
  readonly root?: string;
  readonly framework?: string;
}

export const RUNNER_KINDS = ["vitest", "jest", "node-test", "pytest", "go-test", "command"] as const;
export const IMPORT_FORMATS = [
  "junit",
  "ctrf",
  "go-test",
  "lcov",
  "istanbul",
  "cobertura",
  "go-cover",
] as const;

/** Commands that bring tests to the server that did not run there. */
export function addTestReportCommands(test: Command, run: Run): void {
  madeRun(
    test
      .command("report")
      .summary("run a test command here and report it")
      .description(
        "Runs a test command here and reports each test as it ends. What the command writes is shown as it is, and its " +
          "exit code is this command's, whatever happens to the reporting.",
      )
      .argument("<command...>", "the command, behind --"),
  )
    .addOption(new Option("--runner <kind>", "what the command runs (found out)").choices(RUNNER_KINDS))
    .option("--junit <glob>", "JUnit XML files that the command writes; repeatable", collect)
    .option("--coverage-file <glob>", "coverage files that the command writes; repeatable", collect)
    .option("--coverage", "have the runner measure coverage")
    .addHelpText(
      "after",
      examples(
        "toolplane test report -- npx vitest run",
        "toolplane test report --project shop --env ci -- pytest -x tests",
        "toolplane test report --junit 'target/surefire-reports/*.xml' -- mvn test",
      ),
    )
    .action(
      run(async (context, command: string[], options: TestReportOptions) =>
        (await import("../actions/test-run/report.ts")).reportTests(context, command, options),
      ),
    );

  test
    .command("upload")
    .summary("bring a kept report to the server")
    .description("Brings to the server what `test report` could not, from the folder that it has kept.")
    .argument("<folder>", "the folder")
    .addHelpText("after", examples("toolplane test upload /tmp/toolplane-test-k3f9a0"))
    .action(
      run(async (context, folder: string) =>
        (await import("../actions/test-run/upload.ts")).uploadReport(context, folder),
      ),
    );

  madeRun(
    test
      .command("import")
      .summary("make runs of JUnit XML, CTRF, go test JSON")
      .description(
        "Makes a run of each report: JUnit XML, CTRF, go test -json; or adds coverage to a run: lcov, Istanbul JSON, " +
          "Cobertura, Go's cover profile. What can be read of a broken report is kept.",
      )
      .argument("<file...>", "the reports; - is stdin"),
  )
    .addOption(new Option("--format <format>", "the format (found out)").choices(IMPORT_FORMATS))
    .option("--run <run>", "add coverage to this run instead of making one")
    .option("--root <folder>", "the folder that paths in the report stand below")
    .option("--framework <name>", "what has run the tests, where the report does not say")
    .addHelpText(
      "after",
      examples(
        "toolplane test import junit.xml --project shop --env ci",
        "toolplane test import coverage/lcov.info --run latest --project shop",
        "go test -json ./... | toolplane test import - --project shop",
      ),
    )
    .action(
      run(async (context, files: string[], options: TestImportOptions) =>
        (await import("../actions/test-run/import.ts")).importReports(context, files, options),
      ),
    );
}

function madeRun(command: Command): Command {
  return command
    .option("--project <project>", "the project (TOOLPLANE_PROJECT, else the folder's name)")
    .option("--env <environment>", "where the tests run, such as ci (TOOLPLANE_ENVIRONMENT, else default)")
    .option("--label <key=value>", "a label to find the run by; repeatable", collect)
    .option("--commit <commit>", "the commit that is tested (what git or the build says)")
    .option("--branch <branch>", "the branch that is tested (what git or the build says)");
}
