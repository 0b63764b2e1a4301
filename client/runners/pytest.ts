import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { basename, delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Runner, RunnerError, type RunnerPlan } from "./runner.ts";
import { SPOOL_VARIABLE } from "./spool.ts";

const PLUGIN = "toolplane_pytest.py";
/** Where the plug-in is, seen from one of the folders above this module: it is published as it is, and not built. */
const PLACES = ["", "client", "node_modules/@toolplane/client"].map((place) =>
  join(place, "reporters", "pytest"),
);

/** How long pytest may take to list its plug-ins, in milliseconds. */
const PLUGINS_TIMEOUT_MS = 30_000;

/** What pytest takes for the name of a mark in `-m`. */
const MARK = /^(?!(?:and|or|not|True|False|None)$)[\w:+\-.[\]\\/]+$/;

/** Drives pytest with a plug-in, which reports tests and leaves out those that were not selected. */
export const pytestRunner: Runner = {
  kind: "pytest",
  recognises: (command) => pytestWord(command) !== undefined,
  async prepare(plan) {
    const word = pytestWord(plan.command);
    if (word === undefined) {
      throw new RunnerError("command", `not a command that starts pytest: ${plan.command.join(" ")}`);
    }
    const start = plan.command.slice(0, word + 1);
    const coverageFile = join(plan.workFolder, "coverage.lcov");
    if (plan.coverage) {
      await assertCoverage(start, plan);
    }
    const pluginFolder = join(plan.workFolder, "pytest-plugin");
    // A copy, because Python writes what it has compiled beside its sources.
    await mkdir(pluginFolder, { recursive: true });
    await copyFile(pluginFile(), join(pluginFolder, PLUGIN));
    return {
      argv: [
        ...start,
        "-p",
        "toolplane_pytest",
        ...(plan.coverage ? ["--cov", `--cov-report=lcov:${coverageFile}`] : []),
        ...plan.command.slice(word + 1),
      ],
      env: {
        [SPOOL_VARIABLE]: plan.spoolFile,
        TOOLPLANE_PYTEST_ROOT: plan.directory,
        PYTHONPATH: [pluginFolder, plan.env["PYTHONPATH"]].filter(Boolean).join(delimiter),
        // Besides the report, coverage keeps a file of its own, by default in the project.
        ...(plan.coverage && { COVERAGE_FILE: join(plan.workFolder, "coverage.data") }),
        ...(await writeSelection(plan)),
      },
      reports: [],
      coverageFiles: plan.coverage ? [coverageFile] : [],
      // 5 says that there was no test to run, which the plug-in tells as a problem.
      verdictCodes: [0, 1, 5],
    };
  },
};

/** This module may be a source, compiled, or part of the bundle of the command line or of the server. */
function pluginFile(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const file = PLACES.map((place) => join(folder, place, PLUGIN)).find((path) => existsSync(path));
    if (file !== undefined) {
      return file;
    }
    if (folder === dirname(folder)) {
      throw new RunnerError(
        "command",
        "the plug-in for pytest is missing from this installation of Toolplane",
      );
    }
  }
}

/** The place of the word after which pytest's own arguments begin, as in `python3 -m pytest`. */
function pytestWord(command: readonly string[]): number | undefined {
  const index = command.findIndex((word) => /^(?:pytest|py\.test)(?:-[\d.]+)?(?:\.exe)?$/.test(nameOf(word)));
  return index === -1 ? undefined : index;
}

function nameOf(word: string): string {
  return basename(word.replaceAll("\\", "/"));
}

/** The selection goes to the plug-in in a file: none of it can be taken for an option, and none is too long. */
async function writeSelection({ selection, workFolder }: RunnerPlan): Promise<Record<string, string>> {
  const { files, namePattern, tags, tests } = selection;
  for (const tag of tags) {
    if (!MARK.test(tag)) {
      throw new RunnerError("tags", `"${tag}" cannot be the name of a mark of pytest`);
    }
  }
  if (files.length === 0 && namePattern === "" && tags.length === 0 && tests.length === 0) {
    return {};
  }
  const path = join(workFolder, "pytest-selection.json");
  const names = tests.map(({ file, suitePath, name, parameters }) => ({ file, suitePath, name, parameters }));
  await writeFile(path, JSON.stringify({ files, namePattern, tags, tests: names }));
  return { TOOLPLANE_PYTEST_SELECTION: path };
}

/** Fails early and in words where pytest would only say that it does not know `--cov`. */
async function assertCoverage(
  [file = "", ...start]: readonly string[],
  { directory, env }: Pick<RunnerPlan, "directory" | "env">,
): Promise<void> {
  const options = {
    cwd: directory,
    env: { ...env },
    timeout: PLUGINS_TIMEOUT_MS,
    killSignal: "SIGKILL",
  } as const;
  const plugins = await promisify(execFile)(file, [...start, "-VV"], options).then(
    ({ stdout, stderr }) => stdout + stderr,
    // What is wrong with the command shows when the tests are run.
    () => undefined,
  );
  if (plugins !== undefined && !/\bpytest-cov-\d/.test(plugins)) {
    throw new RunnerError(
      "coverage",
      "pytest measures coverage with pytest-cov, which is not installed: install it, or run without coverage",
    );
  }
}
