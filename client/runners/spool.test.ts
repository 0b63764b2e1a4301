import { appendFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { TestEventInit } from "./runner.ts";
import { createSpoolWriter, followSpool, MAX_SPOOL_LINE_BYTES, type SpoolBatch } from "./spool.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "toolplane-spool-"));
  path = join(folder, "events.jsonl");
});
afterEach(() => rm(folder, { recursive: true }));

const fileStarted = (file: string): TestEventInit => ({ kind: { case: "fileStarted", value: { file } } });

/** What an event says, in a word. */
function told({ kind }: TestEvent): string {
  switch (kind.case) {
    case "fileStarted":
      return kind.value.file;
    case "problem":
      return `${kind.value.place}: ${kind.value.message}`;
    case "testEnded":
      return kind.value.test?.name ?? "";
    default:
      return kind.case ?? "";
  }
}

/** Reads a file to its end. */
async function readAll(): Promise<SpoolBatch[]> {
  const batches: SpoolBatch[] = [];
  for await (const batch of followSpool(path, {
    signal: new AbortController().signal,
    written: AbortSignal.abort(),
  })) {
    batches.push(batch);
  }
  return batches;
}

const events = (batches: readonly SpoolBatch[]) => batches.flatMap((batch) => batch.events).map(told);

describe("a spool file", () => {
  it("gives back what was written, in order, with the line of each", async () => {
    const writer = createSpoolWriter(path);
    for (let i = 1; i <= 2_500; i += 1) {
      writer.write(fileStarted(`file-${i}`));
    }
    writer.close();

    const batches = await readAll();

    expect(events(batches)).toEqual(Array.from({ length: 2_500 }, (_, i) => `file-${i + 1}`));
    let position = 1;
    for (const batch of batches) {
      expect(batch.firstPosition).toBe(position);
      expect(batch.events.length).toBeLessThanOrEqual(1_000);
      position += batch.events.length;
    }
  });

  it("is followed from before it exists, while it is written, half a line at a time", async () => {
    const written = new AbortController();
    const seen: string[] = [];
    const following = (async () => {
      for await (const batch of followSpool(path, {
        signal: new AbortController().signal,
        written: written.signal,
      })) {
        seen.push(...batch.events.map(told));
      }
    })();

    await writeFile(path, '{"fileStarted":{"file":"a"}}\n{"fileSt');
    await expect.poll(() => seen).toEqual(["a"]);
    await appendFile(path, 'arted":{"file":"b"}}\n');
    await expect.poll(() => seen).toEqual(["a", "b"]);
    await appendFile(path, '{"fileStarted":{"file":"c"}}\n');
    written.abort();
    await following;

    expect(seen).toEqual(["a", "b", "c"]);
  });

  it("ends at once when told to", async () => {
    const stop = new AbortController();
    const following = followSpool(path, { signal: stop.signal }).next();
    stop.abort();

    expect(await following).toEqual({ done: true, value: undefined });
  });

  it("has a problem in the place of every line that is no event", async () => {
    await writeFile(
      path,
      Buffer.concat([
        Buffer.from('{"fileStarted":{"file":"a"}}\nnot json\n\n{"fromTomorrow":{}}\n'),
        Buffer.from([0xff, 0xfe, 0x0a]),
        Buffer.from('{"fileStarted":{"file":"b"}}\n{"fileStarted":{"fi'),
      ]),
    );

    expect(events(await readAll())).toEqual([
      "a",
      expect.stringMatching(/^line 2: line 2 of what the reporter wrote is not an event: .*"not json"$/s),
      expect.stringMatching(/^line 3: .* is not an event/s),
      "line 4: line 4 of what the reporter wrote holds no event that is known here",
      expect.stringMatching(/^line 5: .* is not an event/s),
      "b",
      "line 7: line 7 of what the reporter wrote is cut off: the reporter ended while it wrote",
    ]);
  });

  it("leaves out a line that is too long, and goes on after it", async () => {
    await writeFile(
      path,
      `{"fileStarted":{"file":"a"}}\n${"x".repeat(MAX_SPOOL_LINE_BYTES + 1)}\n{"fileStarted":{"file":"b"}}\n`,
    );

    expect(events(await readAll())).toEqual([
      "a",
      "line 2: line 2 of what the reporter wrote is longer than 8 MiB and was left out",
      "b",
    ]);
  });

  it("takes names that are not well-formed, and a problem instead of an event that cannot be written", async () => {
    const writer = createSpoolWriter(path);
    writer.write({
      kind: {
        case: "testEnded",
        value: { test: { name: "half \ud83d of it" }, properties: { "\udc00": "x" } },
      },
    });
    writer.write({ kind: { case: "testFound" } } as never);
    writer.write({
      kind: {
        case: "testEnded",
        value: { test: { name: "huge" }, message: "x".repeat(MAX_SPOOL_LINE_BYTES) },
      },
    });
    writer.write({
      kind: { case: "testEnded", value: { test: { name: "n" }, duration: { seconds: 10n ** 15n } } },
    });
    writer.close();

    expect(events(await readAll())).toEqual([
      "half \ufffd of it",
      expect.stringContaining("holds no event"),
      "testEnded of  huge: an event of more than 8 MiB was left out",
      expect.stringMatching(/^testEnded of {2}n: an event could not be written: /),
    ]);
  });

  it("does not throw when it cannot be written", () => {
    const writer = createSpoolWriter(join(folder, "missing", "events"));
    const stderr: string[] = [];
    const { write } = process.stderr;
    process.stderr.write = (text: string | Uint8Array) => stderr.push(String(text)) > 0;
    try {
      writer.write(fileStarted("a"));
      writer.write(fileStarted("b"));
    } finally {
      process.stderr.write = write;
    }
    writer.close();

    expect(stderr).toEqual([expect.stringContaining("test events cannot be written to")]);
  });
});
