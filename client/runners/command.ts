import { type Runner, RunnerError, type RunnerPlan } from "./runner.ts";

/**
 * Drives any command. What it runs is told by the JUnit XML that it writes, whose place is configured, and by reporters
 * of ours that are part of it.
 */
export const commandRunner: Runner = {
  kind: "command",
  recognises: (command) => command.length > 0,
  async prepare(plan) {
    assertNoSelection(plan.selection);
    return {
      argv: plan.command,
      env: {},
      reports: [],
      coverageFiles: [],
      // Commands differ in what their codes mean; that tests failed is all that they agree on.
      verdictCodes: [0, 1],
    };
  },
};

/** Nothing is known about the command, so nothing can be said to it. */
function assertNoSelection({ files, namePattern, tags, tests }: RunnerPlan["selection"]): void {
  const set = {
    files: files.length > 0,
    name_pattern: namePattern !== "",
    tags: tags.length > 0,
    test_ids: tests.length > 0,
  };
  for (const [field, isSet] of Object.entries(set)) {
    if (isSet) {
      throw new RunnerError(
        field,
        "this project runs a command of its own, which cannot be told which tests to run",
      );
    }
  }
}
