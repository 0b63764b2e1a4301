/** A test as TAP tells of it. */
export interface TapTest {
  /** With what it is nested in, from the outside in. */
  readonly path: string;
  readonly status: "passed" | "failed" | "skipped" | "todo";
}

/** The tests, without suites, and the totals that Node's test runner prints as TAP. */
export function parseTap(tap: string) {
  const tests: TapTest[] = [];
  const totals: Record<string, number> = {};
  const names: string[] = [];
  const lines = tap.split("\n");
  for (const [index, line] of lines.entries()) {
    const [, indent = "", subtest] = /^( *)# Subtest: (.*)$/.exec(line) ?? [];
    if (subtest !== undefined) {
      names.length = indent.length / 4;
      names.push(subtest);
    }
    const [, before = "", notOk, , directive] =
      /^( *)(not )?ok \d+ - (.*?)(?: # (SKIP|TODO|EXPECTED FAILURE).*)?$/.exec(line) ?? [];
    const isResult = /^ *(?:not )?ok \d+ - /.test(line);
    if (isResult && !isSuite(lines, index)) {
      const path = names.slice(0, before.length / 4 + 1).join(" > ");
      tests.push({
        path,
        status:
          directive === "SKIP" ? "skipped" : directive === "TODO" ? "todo" : notOk ? "failed" : "passed",
      });
    }
    const [, name, count] = /^# (tests|pass|fail|cancelled|skipped|todo) (\d+)$/.exec(line) ?? [];
    if (name !== undefined) {
      totals[name] = Number(count);
    }
  }
  return { tests, totals };
}

/** Details follow a result between `---` and `...`. */
function isSuite(lines: readonly string[], index: number): boolean {
  const end = lines.findIndex((line, place) => place > index && line.trim() === "...");
  return lines.slice(index, end).some((line) => /^ *type: 'suite'$/.test(line));
}
