import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { WatchServicesResponseSchema } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { afterEach, describe, expect, it } from "vitest";
import { createToolplane, type NodeToolplane } from "../node.ts";
import { aService, type StubServer, startStubServer } from "../testing/stub-server.ts";

type Reply = MessageInitShape<typeof WatchServicesResponseSchema>;

const immediately = { backoff: { sleep: async () => {} } };

let server: StubServer | undefined;
let client: NodeToolplane | undefined;

afterEach(async () => {
  client?.close();
  await server?.[Symbol.asyncDispose]();
});

describe("watchServices", () => {
  it("goes on after the last revision when the connection breaks", async () => {
    const asked: bigint[] = [];
    server = await startStubServer({
      async *watchServices({ resumeRevision }, { signal }) {
        asked.push(resumeRevision);
        if (resumeRevision === 0n) {
          yield { event: { case: "updated", value: aService({ name: "first" }) } };
          yield { event: { case: "synced", value: { revision: 41n } } };
          yield { event: { case: "heartbeat", value: { time: timestampNow() } } };
        } else {
          yield { event: { case: "updated", value: aService({ name: "second" }) } };
          yield { event: { case: "synced", value: { revision: 42n } } };
        }
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    });
    client = createToolplane({ url: server.url });
    const seen: string[] = [];
    for await (const { event } of client.watchServices({}, immediately)) {
      seen.push(event.case === "updated" ? event.value.name : event.case);
      if (event.case === "synced" && event.value.revision === 41n) server.dropConnections();
      if (event.case === "synced" && event.value.revision === 42n) break;
    }
    expect(seen).toEqual(["first", "synced", "second", "synced"]);
    expect(asked).toEqual([0n, 41n]);
  });

  it("says that everything starts anew when the connection broke within the first listing", async () => {
    let attempts = 0;
    server = await startStubServer({
      async *watchServices() {
        attempts += 1;
        yield { event: { case: "updated", value: aService({ name: `attempt-${attempts}` }) } };
        if (attempts === 1) throw new ConnectError("going down", Code.Unavailable);
        yield { event: { case: "synced", value: { revision: 1n } } };
      },
    });
    client = createToolplane({ url: server.url });
    const seen: string[] = [];
    for await (const { event } of client.watchServices({}, immediately)) {
      seen.push(event.case === "updated" ? event.value.name : event.case);
      if (event.case === "synced") break;
    }
    expect(seen).toEqual(["attempt-1", "reset", "attempt-2", "synced"]);
  });

  it("forgets its revision when the server says that everything follows", async () => {
    const asked: bigint[] = [];
    server = await startStubServer({
      async *watchServices({ resumeRevision }): AsyncGenerator<Reply> {
        asked.push(resumeRevision);
        if (asked.length === 1) yield { event: { case: "synced", value: { revision: 7n } } };
        if (asked.length === 2) yield { event: { case: "reset", value: {} } };
        if (asked.length === 3) yield { event: { case: "synced", value: { revision: 3n } } };
      },
    });
    client = createToolplane({ url: server.url });
    const seen: string[] = [];
    for await (const { event } of client.watchServices({}, immediately)) {
      seen.push(event.case);
      if (seen.length === 3) break;
    }
    expect(seen).toEqual(["synced", "reset", "synced"]);
    expect(asked).toEqual([0n, 7n, 0n]);
  });

  it("passes the filter on and fails for good when the server refuses it", async () => {
    server = await startStubServer({
      // biome-ignore lint/correctness/useYield: the server refuses before it sends anything
      async *watchServices({ filter }) {
        throw new ConnectError(`tags: ${filter?.tags.join()}`, Code.InvalidArgument);
      },
    });
    client = createToolplane({ url: server.url });
    const first = client
      .watchServices({ tags: ["demo"] })
      [Symbol.asyncIterator]()
      .next();
    await expect(first).rejects.toMatchObject({ code: Code.InvalidArgument, rawMessage: "tags: demo" });
  });

  it("waits for a server that is not there yet", async () => {
    const gone = await startStubServer({});
    await gone[Symbol.asyncDispose]();
    client = createToolplane({ url: gone.url });
    const stop = new AbortController();
    const codes: (Code | undefined)[] = [];
    const watch = client.watchServices(
      {},
      {
        ...immediately,
        signal: stop.signal,
        onInterruption: ({ error }) => {
          codes.push(error?.code);
          if (codes.length === 3) stop.abort();
        },
      },
    );
    for await (const _ of watch) expect.unreachable();
    expect(codes).toEqual([Code.Unavailable, Code.Unavailable, Code.Unavailable]);
  });
});
