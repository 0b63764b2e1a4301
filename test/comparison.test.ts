import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createToolplane, type NodeToolplane } from "@toolplane/client/node";
import { TestChangeKind } from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  REAL_TESTS,
  realChanges,
  writeRealSuite,
} from "../server/test-runs/comparison/test-support/real-suite.ts";
import { startTestApp, type TestApp } from "./support/test-app.ts";

let folder: string;
let app: TestApp;
let toolplane: NodeToolplane;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "toolplane-compared-"));
  const project = { name: "compared", runner: "node-test", directory: folder };
  app = await startTestApp({
    config: JSON.stringify({ testing: { projects: [project] } }),
    env: { PATH: process.env["PATH"] },
  });
  toolplane = createToolplane({ url: app.url });
});

afterAll(async () => {
  await toolplane.close();
  await app.close();
  await rm(folder, { recursive: true, force: true });
});

async function runSuite(changed: boolean): Promise<string> {
  await writeRealSuite(folder, changed);
  const { run } = await toolplane.tests.startTestRun({ project: "compared" });
  expect.assert(run !== undefined);
  const { run: ended } = await toolplane.tests.getTestRun({ runId: run.id, wait: { seconds: 60n } });
  expect(ended?.end).toBeDefined();
  return run.id;
}

async function compare(base: string, head: string) {
  const { comparison } = await toolplane.tests.compareTestRuns({
    base: { runIds: [base] },
    head: { runIds: [head] },
  });
  expect.assert(comparison?.summary !== undefined);
  return { ...comparison, summary: comparison.summary };
}

test("a real suite that ran twice shows no regression, and each change to it is found and named", async () => {
  const first = await runSuite(false);
  const second = await runSuite(false);
  const third = await runSuite(true);

  const same = await compare(first, second);
  expect(same.comparability).toMatchObject({ comparable: true, issues: [] });
  expect(same.changes.filter(({ regression }) => regression)).toEqual([]);
  expect(same.summary).toMatchObject({ regression: false, added: 0, removed: 0, stillFailing: 1 });
  expect(same.transitions.reduce((sum, { count }) => sum + count, 0)).toBe(REAL_TESTS);

  const { changes, summary, proposedRenames } = await compare(second, third);
  const named = (kind: TestChangeKind) =>
    changes.filter((change) => change.kind === kind).map((change) => change.test?.name);
  const { added, removed, broken, fixed, slowed, renamedFrom, renamedTo } = realChanges;
  expect(named(TestChangeKind.ADDED).sort()).toEqual([added, renamedTo]);
  expect(named(TestChangeKind.REMOVED).sort()).toEqual([removed, renamedFrom].sort());
  expect(named(TestChangeKind.NEWLY_FAILING)).toEqual([broken]);
  expect(named(TestChangeKind.FIXED)).toEqual([fixed]);
  // Besides whatever else the machine slowed.
  expect(named(TestChangeKind.SLOWER)).toContain(slowed);
  expect(proposedRenames.map(({ from, to }) => [from?.name, to?.name])).toEqual([[renamedFrom, renamedTo]]);
  expect(summary.regression).toBe(true);
  expect(
    changes
      .filter(({ regression }) => regression)
      .map((change) => change.test?.name)
      .sort(),
  ).toEqual([broken, removed].sort());
});
