import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { createGoTestParser } from "./go-test-json.ts";
import { goSelection, goTestName } from "./go-test-name.ts";
import { type Runner, RunnerError, type RunnerPlan } from "./runner.ts";

/** The longest argument that Linux takes is 128 KiB. */
const MAX_PATTERN = 120_000;

/** Flags of `go test` and `go build` that take no value of their own. */
const SWITCHES = new Set(
  "a artifacts asan benchmem c cover failfast fullpath json linkshared modcacherw msan n race short trimpath v work x".split(
    " ",
  ),
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
    const given = parseArguments(plan.command.slice(verb + 1));
    const selection = selectionFlags(plan, given);
    const coverage = coverageFlags(plan, given.flags);
    return {
      // Packages stand before the given flags: those that only the tests know end what `go test` takes for packages.
      argv: [
        ...plan.command.slice(0, verb + 1),
        ...(flagOf(given.flags, "json") ? [] : ["-json"]),
        ...selection.flags,
        ...coverage.flags,
        ...(selection.packages ?? (given.packages.length > 0 ? given.packages : ["./..."])),
        ...selection.given,
        ...given.rest,
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
  /** Each with its value, where that is a word of its own. */
  readonly flags: readonly (readonly string[])[];
  readonly packages: readonly string[];
  /** What only the test binaries read: from `-args` on, or from the first word that is no flag after the packages. */
  readonly rest: readonly string[];
}

/** Tells packages from flags as `go test` does: the first words that are neither flags nor their values are packages. */
function parseArguments(words: readonly string[]): GoArguments {
  const flags: string[][] = [];
  const packages: string[] = [];
  let packagesEnded = false;
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? "";
    const isFlag = word.startsWith("-") && word !== "-";
    if (/^--?args$/.test(word) || (!isFlag && packagesEnded)) {
      return { flags, packages, rest: words.slice(index) };
    }
    if (!isFlag) {
      packages.push(word);
      continue;
    }
    packagesEnded = packages.length > 0;
    const value = words[index + 1];
    const takesValue = !word.includes("=") && !SWITCHES.has(flagName(word));
    if (takesValue && value !== undefined && !value.startsWith("-")) {
      flags.push([word, value]);
      index++;
    } else {
      flags.push([word]);
    }
  }
  return { flags, packages, rest: [] };
}

function flagName(flag: string): string {
  return flag.replace(/^--?(?:test\.)?/, "").replace(/=[\s\S]*$/, "");
}

/** The value of a flag, empty where it has none; undefined when it is not given. */
function flagOf(flags: GoArguments["flags"], name: string): { readonly value: string } | undefined {
  const found = flags.findLast(([flag = ""]) => flagName(flag) === name);
  if (found === undefined) {
    return undefined;
  }
  const [flag = "", value] = found;
  return { value: value ?? flag.split("=").slice(1).join("=") };
}

function without(flags: GoArguments["flags"], names: readonly string[]): string[] {
  return flags.filter(([flag = ""]) => !names.includes(flagName(flag))).flat();
}

/** The flags and packages of a selection. Each flag carries its value in the same word, so that no value is a flag. */
function selectionFlags({ selection, directory }: RunnerPlan, { flags }: GoArguments) {
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
    return { ...testFlags(selection.tests, files), given: without(flags, ["run", "bench"]) };
  }
  if (selection.namePattern !== "" && flagOf(flags, "run")) {
    throw new RunnerError(
      "name_pattern",
      "the project's command has a -run of its own, and go test takes only one",
    );
  }
  return {
    flags: selection.namePattern === "" ? [] : [`-run=${selection.namePattern}`],
    packages: files.length === 0 ? undefined : files,
    given: flags.flat(),
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

function coverageFlags(plan: RunnerPlan, flags: GoArguments["flags"]) {
  if (!plan.coverage) {
    return { flags: [], files: [] };
  }
  const own = flagOf(flags, "coverprofile");
  if (own !== undefined) {
    return { flags: [], files: [own.value] };
  }
  const file = join(plan.workFolder, "coverage.out");
  return { flags: [`-coverprofile=${file}`], files: [file] };
}
