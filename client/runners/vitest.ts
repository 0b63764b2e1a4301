import { createRequire } from "node:module";
import { join } from "node:path";
import { ROOT_VARIABLE } from "../reporters/paths.ts";
import { hasOption, toolIndex, withArguments } from "./javascript-command.ts";
import { reporterFile } from "./javascript-reporter.ts";
import { selectionOf } from "./javascript-selection.ts";
import { type Runner, RunnerError, type RunnerPlan } from "./runner.ts";
import { SPOOL_VARIABLE } from "./spool.ts";

const SUBCOMMANDS = new Set(["run", "watch", "dev", "related", "bench", "init", "list"]);

/** Drives Vitest through a reporter of ours. */
export const vitestRunner: Runner = {
  kind: "vitest",
  recognises: (command) => toolIndex(command, "vitest") !== -1,
  async prepare(plan) {
    const selection = selectionOf(plan);
    const coverage = coverageOptions(plan);
    const { command } = plan;
    const added = [
      ...(hasOption(command, "watch", "--watch", "-w", "dev", "run", "--run") ? [] : ["--run"]),
      // Naming a reporter replaces those that are configured; who names none sees what Vitest shows by default.
      ...(hasOption(command, "--reporter", "--reporters") ? [] : ["--reporter=default"]),
      `--reporter=${reporterFile("vitest")}`,
      ...(selection.namePattern === "" ? [] : [`--testNamePattern=${selection.namePattern}`]),
      ...(plan.selection.tags.length === 0 ? [] : [`--tagsFilter=${tagsExpression(plan.selection.tags)}`]),
      ...coverage.options,
      ...selection.files,
    ];
    return {
      argv: withArguments(
        selection.files.length > 0 ? withoutFilters(command) : command,
        "vitest",
        "vitest run",
        added,
      ),
      env: { [SPOOL_VARIABLE]: plan.spoolFile, [ROOT_VARIABLE]: plan.directory },
      reports: [],
      coverageFiles: coverage.files,
      verdictCodes: [0, 1],
    };
  },
};

/** Vitest runs what any of its filters lets through: a selection takes the place of those right after its name. */
function withoutFilters(command: readonly string[]): readonly string[] {
  const tool = toolIndex(command, "vitest");
  if (tool === -1) {
    return command;
  }
  const first = SUBCOMMANDS.has(command[tool + 1] ?? "") ? tool + 2 : tool + 1;
  let end = first;
  while (end < command.length && !command[end]?.startsWith("-")) {
    end++;
  }
  return [...command.slice(0, first), ...command.slice(end)];
}

function tagsExpression(tags: readonly string[]): string {
  for (const tag of tags) {
    if (/[\s()!&|]/.test(tag) || /^(?:and|or|not)$/i.test(tag)) {
      throw new RunnerError(
        "tags",
        `"${tag}" cannot be a tag of Vitest: it has a meaning in its expressions`,
      );
    }
  }
  return tags.join(" || ");
}

function coverageOptions({ coverage, directory, workFolder, command }: RunnerPlan) {
  if (!coverage) {
    return { options: [], files: [] };
  }
  const provider = hasOption(command, "--coverage.provider") || hasProvider(directory);
  if (!provider) {
    throw new RunnerError(
      "coverage",
      "Vitest measures coverage with a package that this project lacks: add @vitest/coverage-v8 to it",
    );
  }
  const folder = join(workFolder, "coverage");
  return {
    options: ["--coverage.enabled", "--coverage.reporter=json", `--coverage.reportsDirectory=${folder}`],
    files: [join(folder, "coverage-final.json")],
  };
}

function hasProvider(directory: string): boolean {
  const { resolve } = createRequire(join(directory, "package.json"));
  return ["@vitest/coverage-v8/package.json", "@vitest/coverage-istanbul/package.json"].some((name) => {
    try {
      resolve(name);
      return true;
    } catch (error) {
      // Packages need not let their package.json be seen; that one is there is enough.
      return error instanceof Error && "code" in error && error.code === "ERR_PACKAGE_PATH_NOT_EXPORTED";
    }
  });
}
