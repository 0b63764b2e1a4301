import { join } from "node:path";
import { ROOT_VARIABLE } from "../reporters/paths.ts";
import { hasOption, toolIndex, withArguments } from "./javascript-command.ts";
import { reporterFile } from "./javascript-reporter.ts";
import { selectionOf } from "./javascript-selection.ts";
import { type Runner, RunnerError, type RunnerPlan } from "./runner.ts";
import { SPOOL_VARIABLE } from "./spool.ts";

/** Drives Jest through a reporter of ours. */
export const jestRunner: Runner = {
  kind: "jest",
  recognises: (command) => toolIndex(command, "jest") !== -1,
  async prepare(plan) {
    if (plan.selection.tags.length > 0) {
      throw new RunnerError("tags", "Jest has no tags: select by files or by name");
    }
    const selection = selectionOf(plan);
    const coverage = coverageOptions(plan);
    const { command } = plan;
    const options = [
      ...(selection.namePattern === "" ? [] : [`--testNamePattern=${selection.namePattern}`]),
      ...coverage.options,
      // Naming a reporter replaces those that are configured; who names none sees what Jest shows by default.
      ...(hasOption(command, "--reporters") ? [] : ["--reporters=default"]),
      `--reporters=${reporterFile("jest")}`,
    ];
    return {
      argv: withFiles(command, selection.filePatterns, options),
      env: { [SPOOL_VARIABLE]: plan.spoolFile, [ROOT_VARIABLE]: plan.directory },
      reports: [],
      coverageFiles: coverage.files,
      verdictCodes: [0, 1],
    };
  },
};

/** Files stand right after the tool: many options of Jest take all words that follow them. */
function withFiles(command: readonly string[], files: readonly string[], options: readonly string[]) {
  const tool = toolIndex(command, "jest");
  if (tool === -1) {
    return withArguments(command, "jest", "jest", [...files, ...options]);
  }
  const before = command.slice(0, tool + 1);
  const given = command.slice(tool + 1);
  const firstOption = given.findIndex((word) => word.startsWith("-"));
  const rest = files.length === 0 ? given : firstOption === -1 ? [] : given.slice(firstOption);
  return withArguments([...before, ...files, ...rest], "jest", "jest", options);
}

function coverageOptions({ coverage, workFolder }: RunnerPlan) {
  if (!coverage) {
    return { options: [], files: [] };
  }
  const folder = join(workFolder, "coverage");
  return {
    options: ["--coverage", "--coverageReporters=json", `--coverageDirectory=${folder}`],
    files: [join(folder, "coverage-final.json")],
  };
}
