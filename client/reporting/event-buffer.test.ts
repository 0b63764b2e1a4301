import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { describe, expect, it } from "vitest";
import type { TestEventInit } from "../runners/runner.ts";
import { createEventBuffer, type EventBuffer } from "./event-buffer.ts";

const output = (text: string): TestEventInit => ({ kind: { case: "output", value: { text } } });
const fileStarted = (file: string): TestEventInit => ({ kind: { case: "fileStarted", value: { file } } });

function textOf({ kind }: TestEvent): string {
  if (kind.case === "output") return kind.value.text;
  if (kind.case === "fileStarted") return kind.value.file;
  return kind.case === "problem" ? kind.value.message : String(kind.case);
}

async function readAll(buffer: EventBuffer): Promise<string[]> {
  const texts: string[] = [];
  for (let events = await buffer.read(0); events !== undefined; events = await buffer.read(texts.length)) {
    texts.push(...events.map(textOf));
    buffer.release(texts.length);
  }
  return texts;
}

describe("a buffer of events", () => {
  it("drops output when it is full, says so, and keeps everything else", async () => {
    const buffer = createEventBuffer({ maxEvents: 3 });
    void buffer.add(output("1"));
    void buffer.add(output("2"));
    for (const name of ["a", "b", "c", "d"]) void buffer.add(fileStarted(name));
    void buffer.add(output("3"));
    buffer.end();
    expect(await readAll(buffer)).toEqual(["a", "b", "c", "d", expect.stringMatching(/^3 pieces of output/)]);
  });

  it("does not drop output that was read: it may be on its way", async () => {
    const buffer = createEventBuffer({ maxEvents: 2 });
    void buffer.add(output("1"));
    expect((await buffer.read(0))?.map(textOf)).toEqual(["1"]);
    void buffer.add(output("2"));
    void buffer.add(fileStarted("a"));
    buffer.end();
    expect(await readAll(buffer)).toEqual(["1", "a", expect.stringMatching(/^1 pieces of output/)]);
  });

  it("holds back whoever waits until there is room", async () => {
    const buffer = createEventBuffer({ maxEvents: 2 });
    await buffer.add(fileStarted("a"));
    let hasRoom = false;
    const second = buffer.add(fileStarted("b")).then(() => {
      hasRoom = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(hasRoom).toBe(false);
    buffer.release(1);
    await second;
    expect(hasRoom).toBe(true);
  });

  it("counts bytes as well", async () => {
    const buffer = createEventBuffer({ maxBytes: 1_000 });
    void buffer.add(output("x".repeat(2_000)));
    void buffer.add(output("y"));
    buffer.end();
    expect(await readAll(buffer)).toEqual(["y", expect.stringMatching(/^1 pieces of output/)]);
  });

  it("gives batches that fit into a request", async () => {
    const buffer = createEventBuffer();
    for (let n = 0; n < 20; n += 1) void buffer.add(output("x".repeat(100_000)));
    const batch = await buffer.read(0);
    expect(batch?.length).toBe(10);
    for (let n = 0; n < 5_000; n += 1) void buffer.add(fileStarted("a"));
    expect((await buffer.read(20))?.length).toBe(2_000);
  });

  it("cannot go back to what is durable", async () => {
    const buffer = createEventBuffer();
    await buffer.add(fileStarted("a"));
    buffer.release(1);
    await expect(buffer.read(0)).rejects.toThrow(RangeError);
  });
});
