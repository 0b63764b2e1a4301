import { create } from "@bufbuild/protobuf";
import type { NodeToolplane } from "@toolplane/client/node";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { type TestResult, TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { createEventBuffer } from "../../client/reporting/event-buffer.ts";
import { createUploader, type UploadOutcome } from "../../client/reporting/uploader.ts";
import type { TestEventInit } from "../../client/runners/runner.ts";

/** How many events are on their way at most: they are made as fast as the server takes them. */
const ON_THE_WAY = 100;
/** Quick, since what is waited for is a server that starts. */
const backoff = { initialMs: 50, maxMs: 300 };

/** A run of tests that is reported with the real uploader, as long as it is not told to finish. */
export interface ReportedRun {
  /** The run, when the server has made it. */
  readonly created: Promise<TestRun>;
  /** How many events were reported so far. */
  readonly count: () => number;
  /** How many of them the server has acknowledged. */
  readonly acknowledged: () => number;
  /** What a watcher was told, which began with the run; it ends with the run. */
  readonly watched: Promise<readonly TestEvent[]>;
  /** Ends the report after at least so many events. Returns all of them, in order. */
  finish(
    minEvents: number,
  ): Promise<{ readonly outcome: UploadOutcome; readonly sent: readonly TestEventInit[] }>;
}

export function reportRun(toolplane: NodeToolplane): ReportedRun {
  const buffer = createEventBuffer({ maxEvents: ON_THE_WAY, flushDelayMs: 1 });
  let acknowledged = 0;
  const created = Promise.withResolvers<TestRun>();
  const uploader = createUploader({
    client: toolplane.tests,
    run: { project: "shop", environment: "ci", framework: "vitest" },
    source: {
      ...buffer,
      release(position) {
        acknowledged = Math.max(acknowledged, position);
        buffer.release(position);
      },
    },
    onCreated: created.resolve,
    backoff,
  });
  const sent: TestEventInit[] = [];
  let enough = Number.POSITIVE_INFINITY;
  async function makeTests(): Promise<void> {
    for (let number = 1; sent.length < enough; number++) {
      for (const event of eventsOfTest(number)) {
        sent.push(event);
        await buffer.add(event);
      }
    }
  }
  const making = makeTests();
  return {
    created: created.promise,
    count: () => sent.length,
    acknowledged: () => acknowledged,
    watched: created.promise.then(({ id }) => readEvents(toolplane, id)),
    async finish(minEvents) {
      enough = minEvents;
      await making;
      return { outcome: await uploader.finish({ exitCode: 1 }, 60_000), sent };
    },
  };
}

/** All events of a run, to its end. */
export async function readEvents({ watchTestRun }: NodeToolplane, id: string): Promise<TestEvent[]> {
  const events: TestEvent[] = [];
  for await (const news of watchTestRun(id, { backoff })) {
    if (news.kind === "event") {
      events.push(news.event);
    }
  }
  return events;
}

/** What became of every test of a run, by name. */
export async function readResults({ tests }: NodeToolplane, runId: string): Promise<TestResult[]> {
  const all: TestResult[] = [];
  for (let pageToken = ""; ; ) {
    const { results, nextPageToken } = await tests.listTestResults({ runId, pageSize: 1_000, pageToken });
    all.push(...results);
    pageToken = nextPageToken;
    if (pageToken === "") {
      return all;
    }
  }
}

/** What is told of the n-th test; every seventh fails, and every tenth writes something. */
function eventsOfTest(number: number): TestEventInit[] {
  const test = {
    framework: "vitest",
    project: "shop",
    file: `${number % 20}.test.ts`,
    suitePath: ["a shop"],
    name: `test ${number}`,
  };
  const failed = number % 7 === 0;
  const status = failed ? TestStatus.FAILED : TestStatus.PASSED;
  const failures = [{ message: `${number} is not ${number + 1}`, type: "AssertionError" }];
  return [
    { kind: { case: "testStarted", value: { test } } },
    ...(number % 10 === 0
      ? [{ kind: { case: "output" as const, value: { text: `said by ${number}\n`, test } } }]
      : []),
    {
      kind: {
        case: "testEnded",
        value: {
          test,
          status,
          duration: { nanos: number },
          attempts: failed ? [{ status, failures }] : [],
        },
      },
    },
  ];
}

/** What an event says in itself, without what the server adds: to compare what was sent with what is kept. */
export function contentOf(event: TestEventInit): string {
  const { kind } = create(TestEventSchema, event);
  switch (kind.case) {
    case "testStarted":
      return `started ${kind.value.test?.name}`;
    case "output":
      return `${kind.value.test?.name}: ${kind.value.text}`;
    case "testEnded":
      return `ended ${kind.value.test?.name} ${TestStatus[kind.value.status]} ${kind.value.duration?.nanos} ${kind.value.attempts[0]?.failures[0]?.message}`;
    default:
      return `${kind.case}`;
  }
}
