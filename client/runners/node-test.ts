import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { ROOT_VARIABLE } from "../reporters/paths.ts";
import { hasOption, toolName } from "./javascript-command.ts";
import { reporterFile } from "./javascript-reporter.ts";
import { selectionOf } from "./javascript-selection.ts";
import { type Runner, RunnerError, type RunnerPlan } from "./runner.ts";
import { SPOOL_VARIABLE } from "./spool.ts";

/** Options of Node whose value is a word of its own. */
const WITH_VALUE = new Set([
  "-r",
  "--require",
  "--import",
  "--loader",
  "--experimental-loader",
  "-C",
  "--conditions",
  "--env-file",
  "--env-file-if-exists",
  "--input-type",
  "--max-old-space-size",
  "--test-concurrency",
  "--test-coverage-branches",
  "--test-coverage-exclude",
  "--test-coverage-functions",
  "--test-coverage-include",
  "--test-coverage-lines",
  "--test-global-setup",
  "--test-isolation",
  "--test-name-pattern",
  "--test-reporter",
  "--test-reporter-destination",
  "--test-shard",
  "--test-skip-pattern",
  "--test-timeout",
]);

/** Drives Node's own test runner through a reporter of ours. */
export const nodeTestRunner: Runner = {
  kind: "node-test",
  recognises: (command) => nodeIndex(command) !== -1 && hasOption(command, "--test"),
  async prepare(plan) {
    const { command } = plan;
    const node = nodeIndex(command);
    if (node === -1 || !hasOption(command, "--test")) {
      throw new RunnerError(
        "command",
        `not a command for Node's test runner, such as "node --test": ${command.join(" ")}`,
      );
    }
    if (plan.selection.tags.length > 0) {
      throw new RunnerError("tags", "Node's test runner cannot select by tags: select by files or by name");
    }
    const selection = selectionOf(plan);
    const { options, files } = argumentsOf(command.slice(node + 1));
    const coverage = coverageOptions(plan);
    return {
      argv: [
        ...command.slice(0, node + 1),
        ...options,
        ...ownReporters(options),
        `--test-reporter=${pathToFileURL(reporterFile("node-test")).href}`,
        "--test-reporter-destination=stdout",
        ...(selection.namePattern === "" ? [] : [`--test-name-pattern=${literal(selection.namePattern)}`]),
        ...coverage.options,
        ...(selection.files.length > 0 ? selection.files : files),
      ],
      env: { [SPOOL_VARIABLE]: plan.spoolFile, [ROOT_VARIABLE]: plan.directory },
      reports: [],
      coverageFiles: coverage.files,
      verdictCodes: [0, 1],
    };
  },
};

function nodeIndex(command: readonly string[]): number {
  return command.findIndex((word) => /^node(?:js|-?\d[\d.]*)?$/.test(toolName(word)));
}

/** What stands before the first file, and from there on. */
function argumentsOf(words: readonly string[]) {
  let index = 0;
  while (index < words.length && words[index]?.startsWith("-")) {
    index += WITH_VALUE.has(words[index] ?? "") ? 2 : 1;
  }
  return { options: words.slice(0, index), files: words.slice(index) };
}

/** What people see stays as it is; with several reporters, Node wants to know where each one writes. */
function ownReporters(options: readonly string[]): string[] {
  if (!hasOption(options, "--test-reporter")) {
    return ["--test-reporter=spec", "--test-reporter-destination=stdout"];
  }
  return hasOption(options, "--test-reporter-destination") ? [] : ["--test-reporter-destination=stdout"];
}

/** Node takes what is between slashes for a pattern with flags. */
function literal(pattern: string): string {
  return pattern.startsWith("/") ? `(?:)${pattern}` : pattern;
}

function coverageOptions({ coverage, workFolder }: RunnerPlan) {
  if (!coverage) {
    return { options: [], files: [] };
  }
  const file = join(workFolder, "coverage.lcov");
  return {
    options: ["--experimental-test-coverage", "--test-reporter=lcov", `--test-reporter-destination=${file}`],
    files: [file],
  };
}
