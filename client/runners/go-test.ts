import { existsSync } from "node:fs";
import { basename, join, sep } from "node:path";
import { createGoTestParser } from "./go-test-json.ts";
import { goSelection, goTestName } from "./go-test-name.ts";
import { type Runner, RunnerError, type RunnerPlan } from "./runner.ts";

/** The longest argument that Linux takes is 128 KiB. */
const MAX_PATTERN = 120_000;

/** Flags of `go test` and `go build` that take no value of their own. */
const SWITCHES = new Set(
  (
    "a artifacts asan benchmem c cover failfast fullpath json linkshared modcacherw msan n race short trimpath v work x " +
    "test.benchmem test.failfast test.fullpath test.short test.v"
  ).split(" "),
);

/** Drives `go test` by what it writes with `-json`. */
export const goTestRunner: Runner = {
  kind: "go-test",
  recognises: (command) => testVerb(command) !== undefined,
  async prepare(plan) {
    const verb = testVerb(plan.command);
    if (verb === undefined) {
      throw new RunnerError(
        "command",
        `not a command for Go's tests, such as "go test ./...": ${plan.command.join(" ")}`,
      );
    }
    const { flags, packages, rest } = parseArguments(plan.command.slice(verb + 1));
    const selection = selectionFlags(plan, flags);
    const coverage = coverageFlags(plan, flags);
    return {
      argv: [
        ...plan.command.slice(0, verb + 1),
        ...(hasFlag(flags, "json") ? [] : ["-json"]),
        ...flags,
        ...selection.flags,
        ...coverage.flags,
        ...(selection.packages ?? (packages.length > 0 ? packages : ["./..."])),
        ...rest,
      ],
      env: {},
      stdout: createGoTestParser(),
      reports: [],
      coverageFiles: coverage.files,
      // 1 stands for failed tests and for packages that cannot be built, which are told as such.
      verdictCodes: [0, 1],
    };
  },
};

/** The place of `test` in `go test`. */
function testVerb(command: readonly string[]): number | undefined {
  const go = command.findIndex((word) =>
    /^go(?:\d[\w.]*)?(?:\.exe)?$/.test(basename(word.replaceAll("\\", "/"))),
  );
  if (go === -1) {
    return undefined;
  }
  // -C is the only flag that may stand before the verb.
  const verb = command[go + 1] === "-C" ? go + 3 : command[go + 1]?.startsWith("-C=") ? go + 2 : go + 1;
  return command[verb] === "test" ? verb : undefined;
}

interface GoArguments {
  readonly flags: readonly string[];
  readonly packages: readonly string[];
  /** What the test binaries get: everything after the flags that follow the packages, or after `-args`. */
  readonly rest: readonly string[];
}

/** Tells packages from flags as `go test` does: the first words that are neither flags nor their values are packages. */
function parseArguments(words: readonly string[]): GoArguments {
  const flags: string[] = [];
  const packages: string[] = [];
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? "";
    if (!word.startsWith("-") || word === "-") {
      const afterPackages = packages.length > 0 && words[index - 1] !== packages.at(-1);
      if (afterPackages) {
        return { flags, packages, rest: words.slice(index) };
      }
      packages.push(word);
    } else if (/^--?args$/.test(word)) {
      return { flags, packages, rest: words.slice(index) };
    } else {
      flags.push(word);
      const value = words[index + 1];
      if (!word.includes("=") && !SWITCHES.has(flagName(word)) && value !== undefined) {
        flags.push(value);
        index++;
      }
    }
  }
  return { flags, packages, rest: [] };
}

function flagName(flag: string): string {
  return flag.replace(/^--?/, "").replace(/=[\s\S]*$/, "");
}

function hasFlag(flags: readonly string[], name: string): boolean {
  return flags.some((flag) => flag.startsWith("-") && [name, `test.${name}`].includes(flagName(flag)));
}

/** The flags and packages of a selection. Each flag carries its value in the same word, so that no value is a flag. */
function selectionFlags({ selection, directory }: RunnerPlan, flags: readonly string[]) {
  if (selection.tags.length > 0) {
    throw new RunnerError(
      "tags",
      "tests of Go have no tags: select by files, which are packages, or by name",
    );
  }
  const files = selection.files.map((file) => packagePattern(file, directory));
  if (selection.tests.length > 0) {
    if (selection.namePattern !== "") {
      throw new RunnerError("name_pattern", "go test takes single tests or a pattern of names, not both");
    }
    return testFlags(selection.tests, files);
  }
  if (selection.namePattern !== "" && hasFlag(flags, "run")) {
    throw new RunnerError(
      "name_pattern",
      "the project's command has a -run of its own, and go test takes only one",
    );
  }
  return {
    flags: selection.namePattern === "" ? [] : [`-run=${selection.namePattern}`],
    packages: files.length === 0 ? undefined : files,
  };
}

/**
 * Exactly these tests, in the packages that have them. `go test` knows one pattern for all packages: a test of the same
 * name in another of these packages runs too.
 */
function testFlags(tests: RunnerPlan["selection"]["tests"], files: readonly string[]) {
  if (files.length > 0) {
    throw new RunnerError(
      "files",
      "go test takes single tests or packages, not both: tests name their packages",
    );
  }
  const { run, bench } = goSelection(tests.map(goTestName));
  if (Math.max(run.length, bench?.length ?? 0) > MAX_PATTERN) {
    throw new RunnerError(
      "test_ids",
      `${tests.length} tests are too many for one command line of go test: run all`,
    );
  }
  const packages = [...new Set(tests.map(({ file }) => file))];
  for (const name of packages) {
    assertNoFlag(name);
  }
  return { flags: [`-run=${run}`, ...(bench === undefined ? [] : [`-bench=${bench}`])], packages };
}

/** Folders of the project are paths, which Go tells from packages of its library by the dot in front. */
function packagePattern(file: string, directory: string): string {
  assertNoFlag(file);
  const folder = file.replace(/\/?\.\.\.$/, "");
  return !file.startsWith(".") && existsSync(join(directory, folder)) ? `./${file}` : file;
}

function assertNoFlag(packageName: string): void {
  if (packageName === "" || packageName.startsWith("-")) {
    throw new RunnerError("files", `"${packageName}" is not a package of Go, such as ./text or ./...`);
  }
}

function coverageFlags(plan: RunnerPlan, flags: readonly string[]) {
  if (!plan.coverage) {
    return { flags: [], files: [] };
  }
  const own = flags.findIndex((flag) => /^--?(?:test\.)?coverprofile(?:=|$)/.test(flag));
  if (own !== -1) {
    return { flags: [], files: [flags[own]?.split("=").slice(1).join("=") || (flags[own + 1] ?? "")] };
  }
  const file = `${plan.workFolder}${sep}coverage.out`;
  return { flags: [`-coverprofile=${file}`], files: [file] };
}
