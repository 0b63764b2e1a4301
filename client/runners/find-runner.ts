import { commandRunner } from "./command.ts";
import { goTestRunner } from "./go-test.ts";
import { jestRunner } from "./jest.ts";
import { nodeTestRunner } from "./node-test.ts";
import { pytestRunner } from "./pytest.ts";
import type { Runner, RunnerKind } from "./runner.ts";
import { vitestRunner } from "./vitest.ts";

/** All runners; `command`, which takes everything, is the last. */
export const runners: readonly Runner[] = [
  vitestRunner,
  jestRunner,
  nodeTestRunner,
  pytestRunner,
  goTestRunner,
  commandRunner,
];

export function runnerOf(kind: RunnerKind): Runner {
  return runners.find((runner) => runner.kind === kind) ?? commandRunner;
}

/** The runner that a command line starts. One that is not known is a command. */
export function detectRunner(command: readonly string[]): Runner {
  return runners.find((runner) => runner.recognises(command)) ?? commandRunner;
}
