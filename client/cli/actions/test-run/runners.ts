import { detectRunner, type Runner, runnerOf } from "../../../runners/index.ts";
import { RUNNER_KINDS, type TestReportOptions } from "../../commands/test-report.ts";
import { UsageError } from "../../usage-error.ts";

/** Runs a command of which nothing is known. */
export const plainRunner: Runner = runnerOf("command");

/** The runner that `--runner` names, or else the one that the command starts. */
export function chooseRunner(command: readonly string[], { runner: name }: TestReportOptions): Runner {
  if (name === undefined) return detectRunner(command);
  const kind = RUNNER_KINDS.find((each) => each === name);
  if (kind === undefined)
    throw new UsageError(`--runner: "${name}" is not one of ${RUNNER_KINDS.join(", ")}`);
  return runnerOf(kind);
}
