import { writeFile } from "node:fs/promises";
import { join } from "node:path";

/** How many tests the suite has before it is changed. */
export const REAL_TESTS = 2_400;
const FILES = 6;

/** One change of each kind, by the name of its test. */
export const realChanges = {
  added: "is new",
  removed: "goes away",
  broken: "adds up wrongly from now on",
  fixed: "adds up at last",
  slowed: "waits for longer",
  renamedFrom: "reads the settings of a shop",
  renamedTo: "reads the settings of the shop",
} as const;

/**
 * Writes a suite for Node's test runner: most tests compute for a moment, one in forty waits on a timer for up to 15 ms,
 * and a few sort long lists.
 *
 * @param changed with one test added, removed, broken, fixed, renamed, and one slowed by 60 ms: under load a timer
 * of 5 ms takes up to 20
 */
export async function writeRealSuite(folder: string, changed: boolean): Promise<void> {
  const special = specialTests(changed);
  const plain = REAL_TESTS - specialTests(false).length;
  for (let file = 0; file < FILES; file++) {
    const tests = Array.from({ length: plain }, (_, index) => index)
      .filter((index) => index % FILES === file)
      .map((index) => `test("case ${index} does what it should", async () => { ${workOf(index)} });`);
    await writeFile(join(folder, `part-${file}.test.mjs`), [PREAMBLE, ...tests, ""].join("\n"));
  }
  await writeFile(join(folder, "shop.test.mjs"), [PREAMBLE, ...special, ""].join("\n"));
}

const PREAMBLE = `import assert from "node:assert/strict";
import { test } from "node:test";
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const compute = (steps) => { let x = 0; for (let i = 0; i < steps; i++) x = (x * 31 + i) % 1000003; return x; };
const sort = (size) => Array.from({ length: size }, (_, i) => String((i * 7919) % size)).sort();`;

function workOf(index: number): string {
  if (index % 40 === 0) {
    return `await wait(${(index / 40) % 16});`;
  }
  return index % 97 === 0
    ? `assert.equal(sort(${5_000 + 5 * index}).length, ${5_000 + 5 * index});`
    : `assert.ok(compute(${100 * (index % 61)}) >= 0);`;
}

function specialTests(changed: boolean): string[] {
  const { added, removed, broken, fixed, slowed, renamedFrom, renamedTo } = realChanges;
  const line = (name: string, work: string) => `test(${JSON.stringify(name)}, async () => { ${work} });`;
  return [
    changed ? line(added, "assert.ok(true);") : line(removed, "assert.ok(true);"),
    line(broken, `assert.equal(1 + 1, ${changed ? 3 : 2});`),
    line(fixed, `assert.equal(1 + 1, ${changed ? 2 : 3});`),
    line(slowed, `await wait(${changed ? 5 + 60 : 5});`),
    line(changed ? renamedTo : renamedFrom, "assert.ok(true);"),
  ];
}
