import { once } from "node:events";
import { request } from "node:http";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { expect, it } from "vitest";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { transports } from "../test-support/transports.ts";

const count = `${SampleService.typeName}/Count`;
const flood = `${SampleService.typeName}/Flood`;

it.each(Object.entries(transports))("messages of streams are counted, over %s", async (_, connect) => {
  const server = await serveSample();
  const client = createClient(SampleService, connect(server.url));
  await Array.fromAsync(client.count({ value: 3 }));
  await client.echo({ value: "answers with one message" });
  await expect
    .poll(() => server.streams())
    .toEqual([{ method: count, open: 0, stalled: 0, longestStallMs: 0, messages: 3 }]);
});

/** Begin to be flooded, and read nothing. Each returns what leaves. */
const readers: Readonly<Record<string, (url: string) => Promise<() => void>>> = {
  async "gRPC over HTTP/2"(url) {
    const leave = new AbortController();
    const client = createClient(SampleService, createGrpcTransport({ baseUrl: url }));
    await client.flood({}, { signal: leave.signal })[Symbol.asyncIterator]().next();
    return () => leave.abort();
  },
  async "Connect over HTTP/1.1"(url) {
    const headers = { "content-type": "application/connect+proto" };
    const call = request(`${url}/${flood}`, { method: "POST", headers });
    call.on("error", () => {});
    // An envelope with an empty message.
    call.end(Buffer.alloc(5));
    await once(call, "response");
    return () => call.destroy();
  },
};

it.each(Object.entries(readers))(
  "a client that does not read is stalled until it leaves, over %s",
  async (_, read) => {
    const server = await serveSample();
    const leave = await read(server.url);
    await expect.poll(() => server.streams()).toMatchObject([{ method: flood, open: 1, stalled: 1 }]);
    expect(server.streams()[0]?.messages).toBeGreaterThan(0);
    await expect.poll(() => server.streams()[0]?.longestStallMs).toBeGreaterThan(0);
    leave();
    await expect
      .poll(() => server.streams())
      .toMatchObject([{ method: flood, open: 0, stalled: 0, longestStallMs: 0 }]);
  },
);
