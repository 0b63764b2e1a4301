import { randomInt } from "node:crypto";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { createToolplane, type NodeToolplane } from "@toolplane/client/node";
import { TestRunEndReason, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { expect, type TestContext, test, vi } from "vitest";
import { type KillableServer, startKillableServer } from "./support/killable-server.ts";
import { contentOf, type ReportedRun, readEvents, readResults, reportRun } from "./support/reported-run.ts";
import { shopProject } from "./support/shop-project.ts";

const KILLS = 20;
const RUNS = 4;
/** Per run; killing goes on for longer if it takes longer. */
const MIN_EVENTS = 3_000;

/** They wait for servers that start, and the last one for a lease to run out: at once they take half the time. */
const concurrently = { concurrent: true, timeout: 300_000 };

async function start(
  { onTestFinished }: TestContext,
  config?: object,
): Promise<{ server: KillableServer; toolplane: NodeToolplane }> {
  const server = await startKillableServer(config);
  const toolplane = createToolplane({ url: server.url });
  onTestFinished(async () => {
    toolplane.close();
    await server.close();
  });
  return { server, toolplane };
}

/** Waits until the server has taken some more, and then for a moment that nobody can foresee. */
async function randomMoment({ acknowledged }: ReportedRun): Promise<void> {
  const enough = acknowledged() + randomInt(1, 400);
  await vi.waitFor(() => expect(acknowledged()).toBeGreaterThanOrEqual(enough), {
    timeout: 30_000,
    interval: 5,
  });
  await setTimeout(randomInt(0, 20));
}

/** Ends the report while `disturb` does its work, and checks that everything is there, once and in order. */
async function expectNothingLost(
  toolplane: NodeToolplane,
  run: ReportedRun,
  disturb: () => Promise<void>,
): Promise<void> {
  const [{ outcome, sent }] = await Promise.all([run.finish(MIN_EVENTS), disturb()]);
  expect(outcome).toMatchObject({ kind: "finished" });
  expect.assert(outcome.kind === "finished");
  const { id } = outcome.run;

  const events = await readEvents(toolplane, id);
  expect(events.map(({ sequence }) => Number(sequence))).toEqual(events.map((_, index) => index + 1));
  expect(events.map(contentOf)).toEqual(["created", "started", ...sent.map(contentOf), "ended"]);
  // Who watched all the while was told the same.
  expect((await run.watched).map(contentOf)).toEqual(events.map(contentOf));

  const ended = sent.flatMap((event) => (event.kind?.case === "testEnded" ? [contentOf(event)] : []));
  const results = await readResults(toolplane, id);
  const kept = results.map((value) => contentOf({ kind: { case: "testEnded", value } }));
  expect(kept.sort()).toEqual(ended.sort());
  const failed = ended.filter((text) => text.includes("FAILED")).length;
  const { run: found } = await toolplane.tests.getTestRun({ runId: id });
  expect(found).toMatchObject({
    state: TestRunState.FAILED,
    end: { reason: TestRunEndReason.UNSPECIFIED, exitCode: 1 },
    counts: { total: ended.length, failed, passed: ended.length - failed, notRun: 0, interrupted: 0 },
    lastSequence: BigInt(events.length),
  });
}

test(
  "no event of a reporter is lost or doubled, and its run ends once, when the server is killed 20 times",
  concurrently,
  async (context) => {
    const { server, toolplane } = await start(context);
    for (let round = 0; round < RUNS; round++) {
      const run = reportRun(toolplane);
      for (let kill = 1; kill < KILLS / RUNS; kill++) {
        await randomMoment(run);
        await server.restart();
      }
      await expectNothingLost(toolplane, run, async () => {
        await setTimeout(randomInt(0, 200));
        await server.restart();
      });
    }
    const { runs } = await toolplane.tests.listTestRuns({ filter: { project: "shop" } });
    expect(runs).toHaveLength(RUNS);
  },
);

test("nor when the database is killed under a server that lives", concurrently, async (context) => {
  const { server, toolplane } = await start(context);
  const run = reportRun(toolplane);
  for (let kill = 1; kill <= 4; kill++) {
    await randomMoment(run);
    await server.killDatabase();
  }
  await expectNothingLost(toolplane, run, async () => {
    await setTimeout(randomInt(0, 200));
    await server.killDatabase();
  });
});

test(
  "a server that is killed leaves no runner behind, and the run that it ran ends when it is back",
  concurrently,
  async (context) => {
    const folder = await mkdtemp(join(tmpdir(), "toolplane-kills-"));
    context.onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const { server, toolplane } = await start(context, {
      testing: { projects: [shopProject(folder).config] },
    });
    const { run } = await toolplane.tests.startTestRun({ project: "shop", environment: "gated" });
    expect.assert(run !== undefined);
    const runners = () => processesWith(`GATE=${folder}`);
    for await (const news of toolplane.watchTestRun(run.id)) {
      if (news.kind === "event" && news.event.kind.case === "testStarted") {
        if (news.event.kind.value.test?.name === "is ordered") {
          break;
        }
      }
    }
    expect((await runners()).length).toBeGreaterThan(0);

    await server.restart();

    await vi.waitFor(async () => expect(await runners()).toEqual([]), { timeout: 20_000 });
    const events = await readEvents(toolplane, run.id);
    expect(events.map(({ sequence }) => Number(sequence))).toEqual(events.map((_, index) => index + 1));
    expect(events.filter(({ kind }) => kind.case === "ended")).toHaveLength(1);
    expect(events.at(-1)?.kind).toMatchObject({
      case: "ended",
      value: {
        state: TestRunState.ERROR,
        end: { reason: TestRunEndReason.SERVER_LOST, runningTests: [{ name: "is ordered" }] },
        counts: { passed: 2, skipped: 1, interrupted: 1 },
      },
    });
    // The project can be run again.
    const { run: next } = await toolplane.tests.startTestRun({ project: "shop" });
    const { run: over } = await toolplane.tests.getTestRun({ runId: next?.id ?? "", wait: { seconds: 60n } });
    expect(over).toMatchObject({ state: TestRunState.PASSED, counts: { passed: 3, skipped: 1 } });
  },
);

/** The processes that have a text in their environment. */
async function processesWith(text: string): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const having = await Promise.all(
    pids.map(async (pid) => {
      const environment = await readFile(`/proc/${pid}/environ`, "latin1").catch(() => "");
      return environment.includes(text) ? [pid] : [];
    }),
  );
  return having.flat();
}
