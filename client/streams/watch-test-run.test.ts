import { create } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import { TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  type TestRunService,
  type WatchTestRunResponse,
  WatchTestRunResponseSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import fc from "fast-check";
import { expect, it } from "vitest";
import { createToolplane } from "../node.ts";
import { aTestRun, startReportServer } from "../testing/report-server.ts";
import { watchTestRun } from "./watch-test-run.ts";

const backoff = { sleep: async () => {} };
const LENGTH = 30;

/** A run of 30 events, told in pieces; every stream but the last is lost after as many messages as the list says. */
function told(losses: number[], opened: bigint[]) {
  return async function* (request: { afterSequence: bigint }) {
    opened.push(request.afterSequence);
    const lost = losses.shift();
    let messages = 0;
    for (const message of wholeStream(Number(request.afterSequence))) {
      if (messages === lost) throw new ConnectError("gone", Code.Unavailable);
      messages += 1;
      yield message;
    }
  };
}

function* wholeStream(after: number): Generator<WatchTestRunResponse> {
  const run = aTestRun({ state: TestRunState.PASSED, end: {}, lastSequence: BigInt(LENGTH) });
  yield create(WatchTestRunResponseSchema, { kind: { case: "connected", value: { run } } });
  // A piece that begins before what was asked for: nothing may come twice all the same.
  for (let first = Math.max(1, after - 1); first <= LENGTH; first += 7) {
    const events = Array.from({ length: Math.min(7, LENGTH - first + 1) }, (_, n) => ({
      sequence: BigInt(first + n),
      kind:
        first + n === LENGTH
          ? { case: "ended" as const, value: run }
          : { case: "fileStarted" as const, value: { file: `${first + n}` } },
    }));
    yield create(WatchTestRunResponseSchema, { kind: { case: "events", value: { events } } });
    yield create(WatchTestRunResponseSchema, { kind: { case: "heartbeat", value: {} } });
    if (first === 1) {
      yield create(WatchTestRunResponseSchema, { kind: { case: "caughtUp", value: { sequence: 7n } } });
    }
  }
}

async function watched(tests: Client<typeof TestRunService>, afterSequence = 0) {
  const sequences: number[] = [];
  const others: string[] = [];
  for await (const news of watchTestRun(tests, "run-1", { backoff, afterSequence })) {
    if (news.kind === "event") sequences.push(Number(news.event.sequence));
    else others.push(news.kind);
  }
  return { sequences, others };
}

const all = Array.from({ length: LENGTH }, (_, n) => n + 1);

it("every event comes once and in order, wherever the connection is lost", async () => {
  const losses: number[] = [];
  const opened: bigint[] = [];
  await using server = await startReportServer({ others: { watchTestRun: told(losses, opened) } });
  const toolplane = createToolplane({ url: server.url });
  try {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat({ max: 12 }), { maxLength: 6 }), async (schedule) => {
        losses.splice(0, losses.length, ...schedule);
        const { sequences, others } = await watched(toolplane.tests);
        expect(sequences).toEqual(all);
        expect(others.filter((kind) => kind === "connected")).toHaveLength(1);
        expect(others.filter((kind) => kind === "caught-up").length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 50 },
    );
    // Goes on where it was, not from the beginning.
    losses.splice(0, losses.length, 2);
    opened.length = 0;
    await watched(toolplane.tests);
    expect(opened).toEqual([0n, 7n]);
  } finally {
    toolplane.close();
  }
});

it("a watch that begins behind the last event of a run that ended just ends", async () => {
  await using server = await startReportServer({ others: { watchTestRun: told([], []) } });
  const toolplane = createToolplane({ url: server.url });
  try {
    expect(await watched(toolplane.tests, LENGTH)).toEqual({ sequences: [], others: ["connected"] });
  } finally {
    toolplane.close();
  }
});
