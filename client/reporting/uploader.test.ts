import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createToolplane, type NodeToolplane } from "../node.ts";
import type { TestEventInit } from "../runners/runner.ts";
import { createSpoolWriter } from "../runners/spool.ts";
import { type Fault, type ReportServer, startReportServer } from "../testing/report-server.ts";
import { createEventBuffer } from "./event-buffer.ts";
import type { EventSource } from "./event-source.ts";
import { describeOutcome } from "./outcome.ts";
import { createSpoolSource } from "./spool-source.ts";
import { createUploader, type UploaderOptions } from "./uploader.ts";

let server: ReportServer;
let toolplane: NodeToolplane;
let folder: string;

beforeEach(async () => {
  server = await startReportServer();
  toolplane = createToolplane({ url: server.url });
  folder = await mkdtemp(join(tmpdir(), "toolplane-uploader-"));
});
afterEach(async () => {
  toolplane.close();
  await server[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Attempts follow each other at once, but let everything else happen in between. */
const backoff = { sleep: () => new Promise<void>((resolve) => setImmediate(resolve)) };

const upload = (source: EventSource, options: Partial<UploaderOptions> = {}) =>
  createUploader({ client: toolplane.tests, run: { project: "shop" }, source, backoff, ...options });

const output = (text: string): TestEventInit => ({ kind: { case: "output", value: { text } } });
const fileStarted = (file: string): TestEventInit => ({ kind: { case: "fileStarted", value: { file } } });

function textOf({ kind }: TestEvent): string {
  if (kind.case === "output") return kind.value.text;
  if (kind.case === "fileStarted") return kind.value.file;
  return kind.case === "problem" ? `problem: ${kind.value.message}` : String(kind.case);
}

const reported = () => [...server.runs.values()].map(({ events }) => events.map(textOf));

/** What may befall requests without anything having to be lost. */
const faults = fc.array(
  fc.constantFrom<Fault>("none", "none", "lost-before", "lost-after", "unavailable", "restart"),
  { maxLength: 12 },
);

describe("uploading", () => {
  it("makes a run, brings every event there in order, and ends the run", async () => {
    const source = createEventBuffer();
    const uploader = upload(source, { run: { project: "shop", framework: "vitest" } });
    const names = Array.from({ length: 5_000 }, (_, n) => `file-${n}`);
    for (const name of names) await source.add(fileStarted(name));

    const outcome = await uploader.finish({ exitCode: 3, message: "it failed" });

    expect(outcome).toMatchObject({ kind: "finished", run: { id: "run-1" } });
    expect(reported()).toEqual([names]);
    expect(server.runs.get("run-1")).toMatchObject({
      request: { project: "shop", framework: "vitest" },
      finish: { exitCode: 3, message: "it failed", lastPosition: 5_000n },
    });
  });

  it("brings events there while the tests still run", async () => {
    const source = createEventBuffer();
    const uploader = upload(source);
    await source.add(fileStarted("first"));
    await expect.poll(reported).toEqual([["first"]]);
    await source.add(fileStarted("second"));
    await expect.poll(reported).toEqual([["first", "second"]]);
    await uploader.finish({});
  });

  it("makes one run, with each event once and in order, whatever befalls the requests", async () => {
    await fc.assert(
      fc.asyncProperty(
        faults,
        fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 6 }),
        fc.boolean(),
        async (schedule, bursts, spools) => {
          server.faults.splice(0, Number.POSITIVE_INFINITY, ...schedule);
          const before = server.runs.size;
          const path = join(folder, `${before}.jsonl`);
          const writer = createSpoolWriter(path);
          const buffer = createEventBuffer({ flushDelayMs: 0 });
          const uploader = upload(spools ? createSpoolSource(path) : buffer);
          const expected: string[] = [];
          for (const size of bursts) {
            for (let n = 0; n < size; n += 1) {
              const name = `file-${expected.length}`;
              expected.push(name);
              if (spools) writer.write(fileStarted(name));
              else await buffer.add(fileStarted(name));
            }
            await new Promise((resolve) => setImmediate(resolve));
          }
          writer.close();
          const outcome = await uploader.finish({ exitCode: 0 }, 30_000);
          server.faults.length = 0;
          expect(outcome.kind).toBe("finished");
          expect(reported().slice(before)).toEqual([expected]);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("goes back in its spool file when the server has lost what it had acknowledged", async () => {
    const path = join(folder, "events.jsonl");
    const writer = createSpoolWriter(path);
    const uploader = upload(createSpoolSource(path));
    for (const name of ["a", "b", "c"]) writer.write(fileStarted(name));
    await expect.poll(reported).toEqual([["a", "b", "c"]]);
    server.faults.push("forgets-one", "none", "none");
    writer.write(fileStarted("d"));
    writer.close();
    expect((await uploader.finish({})).kind).toBe("finished");
    expect(reported()).toEqual([["a", "b", "c", "d"]]);
  });

  it("puts a problem in the place of an event that the server does not take", async () => {
    server.isInvalid = (event) => textOf(event) === "bad";
    const source = createEventBuffer();
    const uploader = upload(source);
    for (const name of ["a", "b", "bad", "c", "d", "e"]) await source.add(fileStarted(name));
    expect((await uploader.finish({})).kind).toBe("finished");
    expect(reported()).toEqual([
      ["a", "b", expect.stringMatching(/^problem: the server did not take an event/), "c", "d", "e"],
    ]);
  });

  it("leaves out an event that no request can carry", async () => {
    const source = createEventBuffer();
    const uploader = upload(source);
    await source.add(output("x".repeat(5 * 1024 * 1024)));
    await source.add(fileStarted("after"));
    expect((await uploader.finish({})).kind).toBe("finished");
    expect(reported()).toEqual([[expect.stringMatching(/^problem: .*too large/), "after"]]);
  });

  it("says that it lives while there is nothing to tell", async () => {
    await using quick = await startReportServer({ silenceTimeoutMs: 30 });
    using client = disposable(createToolplane({ url: quick.url }));
    const uploader = upload(createEventBuffer(), { client: client.tests });
    await expect.poll(() => quick.runs.get("run-1")?.heartbeats ?? 0).toBeGreaterThan(2);
    expect((await uploader.finish({})).kind).toBe("finished");
  });
});

describe("an upload that cannot go on", () => {
  it("tells of a cancelled run once, and stops", async () => {
    let cancellations = 0;
    const source = createEventBuffer();
    const uploader = upload(source, { onCancelled: () => (cancellations += 1) });
    await source.add(fileStarted("a"));
    await expect.poll(reported).toEqual([["a"]]);
    for (const run of server.runs.values()) run.cancelled = true;
    await source.add(fileStarted("b"));
    await expect.poll(() => cancellations).toBe(1);
    await source.add(fileStarted("c"));
    expect(await uploader.finish({})).toEqual({ kind: "cancelled", runId: "run-1" });
    expect(reported()).toEqual([["a"]]);
    expect(cancellations).toBe(1);
  });

  it("stops when the server refuses, and keeps nobody waiting", async () => {
    server.refusal = new ConnectError("may not", Code.PermissionDenied);
    const source = createEventBuffer({ maxEvents: 1 });
    const uploader = upload(source);
    await source.add(fileStarted("a"));
    // Waits for room, which there will be since nothing is kept any more.
    await source.add(fileStarted("b"));
    const outcome = await uploader.finish({});
    expect(outcome).toMatchObject({ kind: "refused", runId: "run-1" });
    expect(describeOutcome(outcome)).toBe(
      "test run run-1 was not reported to its end: the server refused it (may not)",
    );
  });

  it("gives up in time when there is no server", async () => {
    await server.stop();
    const source = createEventBuffer();
    const uploader = upload(source);
    await source.add(fileStarted("a"));
    const outcome = await uploader.finish({}, 1);
    expect(outcome).toMatchObject({ kind: "unreachable", runId: undefined });
    expect(describeOutcome(outcome)).toMatch(/^tests were not reported: the server could not be reached/);
  });

  it("gives up in time when the server has gone in between", async () => {
    const source = createEventBuffer();
    const uploader = upload(source);
    await source.add(fileStarted("a"));
    await expect.poll(reported).toEqual([["a"]]);
    await server.stop();
    await source.add(fileStarted("b"));
    expect(await uploader.finish({}, 1)).toMatchObject({ kind: "unreachable", runId: "run-1" });
  });
});

function disposable(client: NodeToolplane): NodeToolplane & Disposable {
  return Object.assign(client, { [Symbol.dispose]: () => client.close() });
}
