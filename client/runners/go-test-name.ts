import type { TestIdentity } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { boundedName } from "./bounded-text.ts";

/** How many suites, and characters of a suite, of a name and of a file the contract allows. */
const MAX = { suites: 64, suite: 1024, name: 4096, file: 1024 };

/** The parts of an identity that come from a package and the name of a test, such as `TestRead/utf8/empty`. */
export function goIdentity(packagePath: string, test: string) {
  const levels = test.split("/");
  // A test may be called `a/`, and every test has a name.
  while (levels.length > 1 && levels.at(-1) === "") {
    levels.pop();
    levels.push(`${levels.pop()}/`);
  }
  const suites = levels.slice(0, Math.min(levels.length - 1, MAX.suites));
  return {
    framework: "go-test",
    file: boundedName(packagePath, MAX.file),
    suitePath: suites.map((suite) => boundedName(suite, MAX.suite)),
    name: boundedName(levels.slice(suites.length).join("/"), MAX.name),
  };
}

/** The name that `go test` gives a test, from its identity. */
export function goTestName(test: TestIdentity): string {
  return [...test.suitePath, test.name].join("/");
}

/** What selects tests on the command line of `go test`. */
export interface GoSelection {
  /** For `-run`. */
  readonly run: string;
  /** For `-bench`; undefined: no benchmarks. */
  readonly bench: string | undefined;
}

/**
 * Selects exactly these tests and what is inside of them. A test of which a part is selected runs only that part: what
 * failed in a run are mostly parts, and the tests around them only because of them. `|` outside of brackets separates
 * whole patterns since Go 1.20, and `/` separates the levels of one.
 */
export function goSelection(names: readonly string[]): GoSelection {
  const parents = new Set(names.flatMap(ancestors));
  const wanted = [...new Set(names)].filter((name) => !parents.has(name));
  const benchmarks = wanted.filter(isBenchmark);
  const tests = wanted.filter((name) => !isBenchmark(name));
  return {
    run: tests.length === 0 ? "^$" : tests.map(exactly).join("|"),
    bench: benchmarks.length === 0 ? undefined : benchmarks.map(exactly).join("|"),
  };
}

/** Benchmarks report no end of their own. */
export function isBenchmark(name: string): boolean {
  return /^Benchmark(?!\p{Ll})/u.test(name);
}

function ancestors(name: string): string[] {
  const levels = name.split("/");
  return levels.slice(1).map((_, index) => levels.slice(0, index + 1).join("/"));
}

function exactly(name: string): string {
  return name
    .split("/")
    .map((level) => `^${level.replace(/[\\.+*?()|[\]{}^$]/g, "\\$&")}$`)
    .join("/");
}
