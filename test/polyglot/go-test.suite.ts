import { join } from "node:path";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { describe, expect, it } from "vitest";
import { goTestRunner } from "../../client/runners/go-test.ts";
import { goModule, keyOf, type RanTests, runTests, statusesOf, unfinished } from "./run-tests.ts";
import { root } from "./tools.ts";

const PROJECT = join(root, "test", "polyglot", "go-test-project");
const MODULE = "example.com/demo";

/** Suites that people know, of which none takes long. */
const WELL_KNOWN = [
  ["github.com/google/uuid", "v1.6.0"],
  ["github.com/google/go-cmp", "v0.7.0"],
  ["github.com/spf13/pflag", "v1.0.10"],
] as const;

const STATUS: Readonly<Record<string, TestStatus>> = {
  pass: TestStatus.PASSED,
  fail: TestStatus.FAILED,
  skip: TestStatus.SKIPPED,
};

/** How each test ended by go's own word, read without any of our parser. */
function told({ lines }: RanTests): Record<string, string | undefined> {
  const statuses: Record<string, string | undefined> = {};
  for (const line of lines) {
    const event: { Action?: string; Package?: string; Test?: string } = line.startsWith("{")
      ? JSON.parse(line)
      : {};
    const status = STATUS[event.Action ?? ""];
    if (event.Test !== undefined && status !== undefined) {
      statuses[`${event.Package} ${event.Test.split("/").join(" > ")}`] = TestStatus[status];
    }
  }
  return statuses;
}

/** The real `go test`, on suites of ours that go wrong in all ways, and on suites of others. */
export function testGoTest(): void {
  describe("a project whose tests end in every way", () => {
    let ran: RanTests;
    it("is told as go tells it", async () => {
      ran = await runTests(goTestRunner, ["go", "test", "-count=1", "-timeout", "2s", "./..."], PROJECT);
      expect(ran.end).toMatchObject({ exitCode: 1, reason: 0 });
      expect(ran.results.size).toBeGreaterThan(25);
      const statuses = statusesOf(ran.results);
      const trailing = `${MODULE}/basic TestParts > ends_with_`;
      expect({
        ...statuses,
        // Go has no name for what stands after the last slash.
        [`${trailing} > `]: statuses[`${trailing}/`],
      }).toMatchObject(told(ran));
    });

    it("has what go does not tell: tests that were cut off", () => {
      const others = Object.entries(statusesOf(ran.results)).filter(([name]) => !(name in told(ran)));
      expect(Object.fromEntries(others)).toEqual({
        [`${MODULE}/late TestSlow`]: "FAILED",
        [`${MODULE}/panics TestWaits`]: "INTERRUPTED",
        [`${MODULE}/basic TestParts > ends_with_/`]: "PASSED",
      });
      expect(unfinished(ran.events)).toEqual([]);
    });

    it("has packages that failed besides their tests", () => {
      const failed = ran.events.flatMap(({ kind }) =>
        kind.case === "fileEnded" && kind.value.failures.length > 0
          ? [[kind.value.file, kind.value.failures[0]?.type, kind.value.failures[0]?.message]]
          : [],
      );
      expect(failed.sort()).toEqual([
        [`${MODULE}/broken`, "build failed", expect.stringContaining("undefined: undefined")],
        [`${MODULE}/leaves`, "", "leaving"],
        [`${MODULE}/unready`, "panic", "no configuration"],
      ]);
    });
  });

  it("runs exactly the tests that are selected, whatever their names", async () => {
    const command = ["go", "test", "-count=1", "-run", "Nothing", "./..."];
    const all = await runTests(goTestRunner, ["go", "test", "-count=1", "./basic"], PROJECT);
    const wanted = [...all.results.values()].flatMap(({ test }) =>
      test && test.suitePath.length > 0 && /[(#]|bad$|\/$/.test(test.name) ? [test] : [],
    );
    expect(wanted.length).toBeGreaterThan(4);
    const some = await runTests(goTestRunner, command, PROJECT, { selection: { tests: wanted } });
    const parents = wanted.flatMap(({ suitePath }) =>
      suitePath.map((_, level) => `${MODULE}/basic ${suitePath.slice(0, level + 1).join(" > ")}`),
    );
    expect([...some.results.keys()].sort()).toEqual([...new Set([...wanted.map(keyOf), ...parents])].sort());
  });

  it("runs benchmarks, which say nothing of their end", async () => {
    const command = ["go", "test", "-run", "^$", "-bench", ".", "-benchtime", "1x", "./basic"];
    const { results } = await runTests(goTestRunner, command, PROJECT);
    expect(statusesOf(results)).toEqual({ [`${MODULE}/basic BenchmarkAdd`]: "PASSED" });
  });

  it("measures coverage", async () => {
    const { events } = await runTests(goTestRunner, ["go", "test", "./basic"], PROJECT, { coverage: true });
    const covered = events.flatMap(({ kind }) => (kind.case === "coverage" ? kind.value.files : []));
    expect(covered.map(({ file }) => file)).toEqual([expect.stringMatching(/basic\/basic\.go$/)]);
    expect(covered[0]?.lines.some(({ hits }) => hits > 0)).toBe(true);
  });

  it("tells tests that run again apart", async () => {
    const command = ["go", "test", "-run", "TestPass", "-count=3", "./basic"];
    const { results } = await runTests(goTestRunner, command, PROJECT);
    expect([...results.keys()]).toEqual(
      ["", " #1", " #2"].map((which) => `${MODULE}/basic TestPass${which}`),
    );
  });

  it("has told everything up to the moment in which a test binary is killed", async () => {
    const command = ["go", "test", "-count=1", "-exec", join(PROJECT, "run-and-tell"), "./late"];
    const { results, end } = await runTests(goTestRunner, command, PROJECT, {
      onEvent({ kind }) {
        const pid = kind.case === "output" ? /^pid (\d+)$/m.exec(kind.value.text)?.[1] : undefined;
        if (pid !== undefined) {
          binary = Number(pid);
        }
        if (kind.case === "testStarted" && kind.value.test?.name === "TestSlow") {
          process.kill(binary, "SIGKILL");
        }
      },
    });
    expect(end.exitCode).toBe(1);
    expect(statusesOf(results)).toEqual({
      [`${MODULE}/late TestQuick`]: "PASSED",
      [`${MODULE}/late TestSlow`]: "INTERRUPTED",
    });
  });
  let binary = 0;

  it.each(WELL_KNOWN)("tells the tests of %s %s as go tells them", async (path, version) => {
    const ran = await runTests(
      goTestRunner,
      ["go", "test", "-count=1", "./..."],
      await goModule(path, version),
    );
    expect(Object.keys(told(ran)).length).toBeGreaterThan(30);
    expect(statusesOf(ran.results)).toEqual(told(ran));
    expect(unfinished(ran.events)).toEqual([]);
  });
}
