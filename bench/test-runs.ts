import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunService } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { BenchRow } from "./row.ts";
import type { Watched } from "./test-runs-watchers.ts";

type Tests = Client<typeof TestRunService>;

const INGESTED = 40_000;
const BATCH = 2_000;
const ALONE = 300;
const WATCHERS = 1_000;
const WATCHED = 10_000;
const PROBES = 200;

/** A process of this folder that talks by lines. */
function start(file: string, ...args: string[]) {
  const child: ChildProcess = spawn(
    process.execPath,
    ["--conditions=toolplane-source", join(import.meta.dirname, file), ...args],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) {
    throw new Error(`${file} has no pipes`);
  }
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  return {
    async line(): Promise<string> {
      const { value, done } = await lines.next();
      if (done === true) {
        throw new Error(`${file} ended too early`);
      }
      return value;
    },
    say: (text: string) => void stdin.write(`${text}\n`),
    async end() {
      const exit = child.exitCode === null ? once(child, "exit") : undefined;
      stdin.end();
      await exit;
    },
  };
}

/** What a run of `count` tests reports, two events a test. */
function eventsOf(first: number, count: number) {
  return Array.from({ length: count }, (_, index) => {
    const number = Math.floor((first + index) / 2);
    const test = {
      framework: "bench",
      file: `src/part-${number % 100}.test.ts`,
      suitePath: ["a suite", "of some depth"],
      name: `does what it should do, number ${number}`,
    };
    const kind =
      (first + index) % 2 === 0
        ? ({ case: "testStarted", value: { test } } as const)
        : ({
            case: "testEnded",
            value: { test, status: TestStatus.PASSED, duration: { seconds: 0n, nanos: 1_500_000 } },
          } as const);
    return { kind };
  });
}

async function createRun(tests: Tests): Promise<string> {
  const { run } = await tests.createTestRun({ project: "bench", framework: "bench" });
  return run?.id ?? "";
}

/** Durable events a second, from the call of the first batch to the answer to the last. */
async function ingest(tests: Tests, events: number, batch: number): Promise<number> {
  const runId = await createRun(tests);
  const batches = Array.from({ length: Math.ceil(events / batch) }, (_, index) =>
    eventsOf(index * batch, batch),
  );
  const began = performance.now();
  for (const [index, part] of batches.entries()) {
    await tests.appendTestEvents({ runId, firstPosition: BigInt(index * batch + 1), events: part });
  }
  const seconds = (performance.now() - began) / 1_000;
  await tests.finishTestRun({ runId });
  return (batches.length * batch) / seconds;
}

/** From the call that appends a single event until a watcher has it, in milliseconds, sorted. */
async function latencies(tests: Tests): Promise<number[]> {
  const runId = await createRun(tests);
  const leave = new AbortController();
  const watch = tests.watchTestRun({ runId }, { signal: leave.signal })[Symbol.asyncIterator]();
  let seen = 0n;
  async function until(wanted: bigint): Promise<void> {
    while (seen < wanted) {
      const { value } = await watch.next();
      if (value?.kind.case === "events") {
        seen = value.kind.value.events.at(-1)?.sequence ?? seen;
      }
    }
  }
  const taken: number[] = [];
  await until(1n);
  for (const [index, event] of eventsOf(0, PROBES).entries()) {
    const began = performance.now();
    const appended = tests.appendTestEvents({ runId, firstPosition: BigInt(index + 1), events: [event] });
    // `created` and `started` come before what the reporter tells.
    await until(BigInt(index + 3));
    taken.push(performance.now() - began);
    await appended;
  }
  leave.abort();
  await tests.finishTestRun({ runId });
  return taken.sort((left, right) => left - right);
}

async function watchers(url: string, tests: Tests, memory: () => Promise<number>) {
  const runId = await createRun(tests);
  const before = await memory();
  const crowd = start("test-runs-watchers.ts", url, runId, String(WATCHERS));
  await crowd.line();
  let peak = 0;
  const appended = WATCHED - 3; // besides `created`, `started` and `ended`
  for (let position = 0; position < appended; position += 500) {
    const part = eventsOf(position, Math.min(500, appended - position));
    await tests.appendTestEvents({ runId, firstPosition: BigInt(position + 1), events: part });
    peak = Math.max(peak, await memory());
    if (position === Math.floor(appended / 1_000) * 500) {
      crowd.say("late");
    }
  }
  await tests.finishTestRun({ runId });
  crowd.say("release");
  const result = crowd.line();
  let watched: string | undefined;
  result.then((line) => {
    watched = line;
  });
  while (watched === undefined) {
    peak = Math.max(peak, await memory());
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await crowd.end();
  const outcome: Watched = JSON.parse(watched);
  return { ...outcome, beforeMb: before / 1e6, peakMb: peak / 1e6 };
}

/** Test runs over the network, against a server in a process of its own. */
export async function run(): Promise<BenchRow[]> {
  const server = start("test-runs-server.ts");
  const url = await server.line();
  const sessionManager = new Http2SessionManager(url);
  const tests = createClient(TestRunService, createGrpcTransport({ baseUrl: url, sessionManager }));
  const memory = async () => {
    server.say("memory");
    return Number(await server.line());
  };
  try {
    await ingest(tests, BATCH * 2, BATCH);
    const batched = await ingest(tests, INGESTED, BATCH);
    const alone = await ingest(tests, ALONE, 1);
    const waits = await latencies(tests);
    const p50 = waits[Math.floor(waits.length / 2)] ?? Number.NaN;
    const p99 = waits[Math.floor(waits.length * 0.99)] ?? Number.NaN;
    const crowd = await watchers(url, tests, memory);
    return [
      {
        area: "test-runs",
        what: `durable events a second, ${BATCH} a batch`,
        ours: Math.round(batched).toLocaleString("en"),
        peer: Math.round(alone).toLocaleString("en"),
        peerName: "one event a request",
        ratio: `${(batched / alone).toFixed(0)}×`,
        target: "≥ 10,000",
        pass: batched >= 10_000,
      },
      {
        area: "test-runs",
        what: "from a report to a watcher, p99",
        ours: `${p99.toFixed(1)} ms`,
        peer: `${p50.toFixed(1)} ms`,
        peerName: "the median",
        ratio: `${(p99 / p50).toFixed(1)}×`,
        target: "< 50 ms",
        pass: p99 < 50,
      },
      {
        area: "test-runs",
        what: `${WATCHERS} watchers of ${WATCHED} events with the whole sequence, in ${crowd.seconds.toFixed(1)} s`,
        ours: String(crowd.different === 1 && crowd.events === WATCHED ? crowd.complete : 0),
        peer: String(WATCHERS),
        peerName: "all of them",
        ratio: `${(crowd.complete / WATCHERS).toFixed(2)}×`,
        target: "all",
        pass: crowd.complete === WATCHERS && crowd.different === 1 && crowd.events === WATCHED,
      },
      {
        area: "test-runs",
        what: "the server's memory with these watchers, at most",
        ours: `${crowd.peakMb.toFixed(0)} MB`,
        peer: `${crowd.beforeMb.toFixed(0)} MB`,
        peerName: "before",
        ratio: `${(crowd.peakMb / crowd.beforeMb).toFixed(1)}×`,
        target: "≤ 600 MB more",
        pass: crowd.peakMb - crowd.beforeMb <= 600,
      },
    ];
  } finally {
    sessionManager.abort();
    await server.end();
  }
}
