import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createTransport as connectTransport } from "@connectrpc/connect/protocol-connect";
import { createTransport as grpcTransport } from "@connectrpc/connect/protocol-grpc";
import { createTransport as grpcWebTransport } from "@connectrpc/connect/protocol-grpc-web";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { describe, expect, test, vi } from "vitest";
import { authorityCertificate, serverCertificate, serverKey } from "../test-support/certificates.ts";
import { type SampleServer, serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";

const tls = { cert: serverCertificate, key: serverKey, clientCa: authorityCertificate };

describe.each([
  ["gRPC", grpcTransport],
  ["gRPC-Web", grpcWebTransport],
  ["Connect", connectTransport],
])("a process calls its own services over %s without a connection", (_, create) => {
  function transportTo(server: SampleServer): Transport {
    return create({
      httpClient: server.localClient(),
      baseUrl: server.url,
      useBinaryFormat: true,
      interceptors: [],
      acceptCompression: [],
      sendCompression: null,
      compressMinBytes: 0,
      readMaxBytes: 1024 * 1024,
      writeMaxBytes: 1024 * 1024,
    });
  }

  test("with calls of every kind, although the port asks for a certificate", async () => {
    const server = await serveSample({ tls });
    const client = createClient(SampleService, transportTo(server));
    expect(await client.echo({ value: "hello" })).toMatchObject({ value: "hello" });
    expect(await client.join(texts("a", "b"))).toMatchObject({ value: "a b" });
    expect((await all(client.count({ value: 3 }))).map(({ value }) => value)).toEqual([1, 2, 3]);
    expect((await all(client.chat(texts("x", "y")))).map(({ value }) => value)).toEqual(["x!", "y!"]);
    const calls = server.logged.filter(({ msg }) => msg === "call");
    expect(calls).toHaveLength(4);
    expect(calls).toMatchObject(calls.map(() => ({ code: "ok", peer: "local" })));
  });

  test("with the errors, the validation and the correlation id of any call", async () => {
    const server = await serveSample({ routes: (router) => router.service(ToolService, {}) });
    const client = createClient(ToolService, transportTo(server));
    const headers = { "x-correlation-id": "c-1" };
    const error = await client.callTool({ call: {} }, { headers }).catch(ConnectError.from);
    expect(error).toMatchObject({ code: Code.InvalidArgument });
    expect((error as ConnectError).findDetails(ErrorInfoSchema)).toMatchObject([
      { reason: "INVALID_FIELDS" },
    ]);
    expect(server.logged.filter(({ msg }) => msg === "call")).toMatchObject([{ correlationId: "c-1" }]);
  });

  test("and ends a stream whose reader leaves", async () => {
    const ended = vi.fn();
    const server = await serveSample(
      {},
      {
        async *flood(_request, { signal }) {
          signal.addEventListener("abort", ended);
          for (;;) {
            yield { value: new Uint8Array(1024) };
          }
        },
      },
    );
    const client = createClient(SampleService, transportTo(server));
    const left = new AbortController();
    for await (const _ of client.flood({}, { signal: left.signal })) {
      break;
    }
    left.abort();
    await expect.poll(() => ended).toHaveBeenCalledOnce();
    await expect.poll(() => server.logged.filter(({ msg }) => msg === "call")).toHaveLength(1);
  });

  test("and keeps to a deadline", async () => {
    const server = await serveSample({}, { echo: () => new Promise(() => {}) });
    const client = createClient(SampleService, transportTo(server));
    const error = await client.echo({ value: "" }, { timeoutMs: 200 }).catch(ConnectError.from);
    expect(error).toMatchObject({ code: Code.DeadlineExceeded });
    await expect
      .poll(() => server.logged.filter(({ msg }) => msg === "call"))
      .toMatchObject([{ code: expect.stringMatching(/deadline_exceeded|canceled/) }]);
  });
});

async function* texts(...values: string[]) {
  for (const value of values) {
    yield { value };
  }
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const gathered: T[] = [];
  for await (const item of items) {
    gathered.push(item);
  }
  return gathered;
}
