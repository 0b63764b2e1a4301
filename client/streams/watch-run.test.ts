import type { Client } from "@connectrpc/connect";
import type { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import fc from "fast-check";
import { expect, it } from "vitest";
import { createToolplane } from "../node.ts";
import { aRun, numbered, started, tellRun } from "../testing/scripted-run.ts";
import { startStubServer } from "../testing/stub-server.ts";
import { watchRun } from "./watch-run.ts";

const backoff = { sleep: async () => {} };
const LENGTH = 30;

const events = numbered([
  ["", { case: "created", value: aRun() }],
  ...Array.from({ length: LENGTH - 2 }, (_, n) => started(`step${n}`)),
  ["", { case: "finished", value: aRun({ state: RunState.SUCCEEDED }) }],
]);
const all = events.map(({ sequence }) => Number(sequence));

async function watched(orchestration: Client<typeof OrchestrationService>, afterSequence = 0) {
  const sequences: number[] = [];
  const others: string[] = [];
  for await (const news of watchRun(orchestration, "run-1", { backoff, afterSequence })) {
    if (news.kind === "event") sequences.push(Number(news.event.sequence));
    else others.push(news.kind);
  }
  return { sequences, others };
}

it("every event of a run comes once and in order, wherever the connection is lost", async () => {
  const losses: number[] = [];
  const opened: bigint[] = [];
  await using server = await startStubServer(
    {},
    {},
    {},
    { watchRun: tellRun(events, { losses, opened, batch: 7 }) },
  );
  const toolplane = createToolplane({ url: server.url });
  try {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat({ max: 12 }), { maxLength: 6 }), async (schedule) => {
        losses.splice(0, losses.length, ...schedule);
        const { sequences, others } = await watched(toolplane.orchestration);
        expect(sequences).toEqual(all);
        expect(others.filter((kind) => kind === "connected")).toHaveLength(1);
        expect(others.filter((kind) => kind === "caught-up").length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 50 },
    );
    // Goes on where it was, not from the beginning.
    losses.splice(0, losses.length, 2);
    opened.length = 0;
    await watched(toolplane.orchestration);
    expect(opened).toEqual([0n, 7n]);
  } finally {
    toolplane.close();
  }
});

it("a watch that begins behind the last event of a run that has ended just ends", async () => {
  await using server = await startStubServer({}, {}, {}, { watchRun: tellRun(events) });
  const toolplane = createToolplane({ url: server.url });
  try {
    expect(await watched(toolplane.orchestration, LENGTH)).toEqual({ sequences: [], others: ["connected"] });
  } finally {
    toolplane.close();
  }
});

it("a run that does not exist is an error, not an attempt after another", async () => {
  await using server = await startStubServer({}, {}, {}, {});
  const toolplane = createToolplane({ url: server.url });
  try {
    await expect(watched(toolplane.orchestration)).rejects.toThrow("unimplemented");
  } finally {
    toolplane.close();
  }
});
