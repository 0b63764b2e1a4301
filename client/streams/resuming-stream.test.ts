import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { describe, expect, it } from "vitest";
import { type Interruption, type ResumeOptions, resumingStream } from "./resuming-stream.ts";

/** Connections that deliver what a test says, one after the other; the last one stays open. */
function connections(...scripts: (readonly (number | Error)[])[]) {
  const opened: AbortSignal[] = [];
  async function* open(signal: AbortSignal): AsyncGenerator<number> {
    opened.push(signal);
    const script = scripts[opened.length - 1];
    for (const step of script ?? []) {
      if (step instanceof Error) throw step;
      yield step;
    }
    if (opened.length >= scripts.length) await aborted(signal);
  }
  return { open, opened };
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

/** Does not wait, and keeps what it was told. */
function recording(): { options: ResumeOptions; interruptions: Interruption[]; waits: number[] } {
  const interruptions: Interruption[] = [];
  const waits: number[] = [];
  return {
    interruptions,
    waits,
    options: {
      onInterruption: (interruption) => interruptions.push(interruption),
      backoff: {
        random: () => 0.5,
        sleep: async (ms) => {
          waits.push(ms);
        },
      },
    },
  };
}

async function take<T>(count: number, stream: AsyncIterable<T>): Promise<T[]> {
  const taken: T[] = [];
  for await (const each of stream) {
    taken.push(each);
    if (taken.length === count) break;
  }
  return taken;
}

describe("resumingStream", () => {
  it("opens the connection again after it was lost and after the server ended it", async () => {
    const { open } = connections([1, new ConnectError("gone", Code.Unavailable)], [2], [3]);
    const { options, interruptions } = recording();
    expect(await take(3, resumingStream(open, options))).toEqual([1, 2, 3]);
    expect(interruptions.map(({ error, attempt }) => [error?.code, attempt])).toEqual([
      [Code.Unavailable, 1],
      [undefined, 1],
    ]);
  });

  it("waits longer the more attempts in a row bring nothing, and starts anew after one that did", async () => {
    const down = new ConnectError("down", Code.Unavailable);
    const { open } = connections([down], [down], [down], [1, down], [2]);
    const { options, waits } = recording();
    await take(2, resumingStream(open, options));
    expect(waits).toEqual([125, 250, 500, 125]);
  });

  it("stays away for as long as the server asks", async () => {
    const busy = new ConnectError("busy", Code.ResourceExhausted, undefined, [
      { desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay: durationFromMs(7_000) }) },
    ]);
    const { open } = connections([busy], [1]);
    const { options, waits } = recording();
    await take(1, resumingStream(open, options));
    expect(waits).toEqual([7_000]);
  });

  it.each([
    Code.InvalidArgument,
    Code.NotFound,
    Code.PermissionDenied,
    Code.Unauthenticated,
    Code.Unimplemented,
    Code.FailedPrecondition,
  ])("gives up on code %i, which no further attempt can heal", async (code) => {
    const { open, opened } = connections([1, new ConnectError("no", code)], [2]);
    await expect(take(2, resumingStream(open, recording().options))).rejects.toMatchObject({ code });
    expect(opened).toHaveLength(1);
  });

  it("just ends when its signal aborts, while it waits for an event and while it waits for an attempt", async () => {
    const whileOpen = new AbortController();
    const { open } = connections([1]);
    const seen: number[] = [];
    for await (const event of resumingStream(open, { signal: whileOpen.signal })) {
      seen.push(event);
      queueMicrotask(() => whileOpen.abort());
    }
    expect(seen).toEqual([1]);

    const whileWaiting = new AbortController();
    const lost = connections([new ConnectError("down", Code.Unavailable)], [1]);
    const stream = resumingStream(lost.open, {
      signal: whileWaiting.signal,
      backoff: { initialMs: 3_600_000, maxMs: 3_600_000, random: () => 0.999 },
      onInterruption: () => queueMicrotask(() => whileWaiting.abort()),
    });
    expect(await take(1, stream)).toEqual([]);
    expect(lost.opened).toHaveLength(1);
  });

  it("opens nothing when the signal was aborted before", async () => {
    const { open, opened } = connections([1]);
    expect(await take(1, resumingStream(open, { signal: AbortSignal.abort() }))).toEqual([]);
    expect(opened).toHaveLength(0);
  });

  it("takes a connection for lost on which nothing arrives", async () => {
    const silent = connections([1, new ConnectError("unused")].slice(0, 1));
    const { options, interruptions } = recording();
    let attempts = 0;
    async function* open(signal: AbortSignal): AsyncGenerator<number> {
      attempts += 1;
      if (attempts === 1) yield* silent.open(signal);
      else yield 2;
    }
    expect(await take(2, resumingStream(open, { ...options, silenceMs: 20 }))).toEqual([1, 2]);
    expect(interruptions[0]?.error?.message).toContain("nothing arrived for 20 ms");
  });

  it("closes the connection when the consumer leaves", async () => {
    const { open, opened } = connections([1, 2, 3]);
    await take(1, resumingStream(open));
    expect(opened[0]?.aborted).toBe(true);
  });

  it("closes the connection when the consumer fails", async () => {
    const { open, opened } = connections([1, 2, 3]);
    const consume = async () => {
      for await (const _ of resumingStream(open)) throw new Error("consumer");
    };
    await expect(consume()).rejects.toThrow("consumer");
    expect(opened[0]?.aborted).toBe(true);
  });
});
