import { once } from "node:events";
import { Agent, request as httpRequest } from "node:http";
import { connect as connectHttp2, constants } from "node:http2";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { closeOnSignals } from "../index.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";

/** A handler that has begun and ends when it is told to. */
function pausedEcho() {
  const begun = Promise.withResolvers<void>();
  const proceed = Promise.withResolvers<void>();
  return {
    begun: begun.promise,
    proceed: () => proceed.resolve(),
    async echo({ value }: { value: string }) {
      begun.resolve();
      await proceed.promise;
      return { value };
    },
  };
}

test.each([
  ["HTTP/2", (baseUrl: string) => createGrpcTransport({ baseUrl })],
  ["HTTP/1.1", (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "1.1" })],
])("a running call over %s finishes while the server drains", async (_, connect) => {
  const paused = pausedEcho();
  const server = await serveSample({ drainTimeoutMs: 30_000 }, { echo: paused.echo });
  const call = createClient(SampleService, connect(server.url)).echo({ value: "still here" });
  await paused.begun;
  const closed = server.close();
  await expect.poll(() => fetch(`${server.url}/healthz`).catch(() => "refused")).toBe("refused");
  paused.proceed();
  expect((await call).value).toBe("still here");
  await closed;
});

test.each([
  ["gRPC", (baseUrl: string) => createGrpcTransport({ baseUrl })],
  ["Connect over HTTP/2", (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "2" })],
  ["Connect over HTTP/1.1", (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "1.1" })],
])("a client that has lost interest in a stream holds nothing up: %s", async (_, connect) => {
  const draining = Promise.withResolvers<void>();
  const server = await serveSample(
    { drainTimeoutMs: 600_000, onDrain: async () => draining.resolve() },
    {
      async *count() {
        yield { value: 1 };
        yield { value: 2 };
        await draining.promise;
      },
    },
  );
  for await (const { value } of createClient(SampleService, connect(server.url)).count({})) {
    expect(value).toBe(1);
    break; // and the second number is never read
  }
  await server.close();
});

test("a call that comes too late learns that it may be sent elsewhere", async () => {
  const paused = pausedEcho();
  const server = await serveSample({ drainTimeoutMs: 30_000 }, { echo: paused.echo });
  const session = connectHttp2(server.url);
  onTestFinished(() => session.destroy());
  const post = () => {
    const stream = session.request({
      ":method": "POST",
      ":path": "/sample.v1.SampleService/Echo",
      "content-type": "application/json",
    });
    stream.end('""');
    stream.resume();
    return stream;
  };
  const first = post();
  await paused.begun;
  // Within the same turn as the GOAWAY: the server cannot have told the client yet.
  const closed = server.close();
  const second = post();
  second.on("error", () => {}); // told by its code
  await expect.poll(() => second.rstCode).toBe(constants.NGHTTP2_REFUSED_STREAM);
  paused.proceed();
  const [headers] = await once(first, "response");
  expect(headers[":status"]).toBe(200);
  await closed;
});

test("health says NOT_SERVING before anything else happens", async () => {
  const paused = pausedEcho();
  const server = await serveSample({ drainTimeoutMs: 30_000 }, { echo: paused.echo });
  const transport = createGrpcTransport({ baseUrl: server.url });
  const call = createClient(SampleService, transport).echo({});
  await paused.begun;
  const statuses: number[] = [];
  const watched = (async () => {
    for await (const { status } of createClient(Health, transport).watch({})) {
      statuses.push(status);
      if (status === 1) {
        void server.close();
      }
    }
  })();
  await watched;
  expect(statuses).toEqual([1, 2]);
  paused.proceed();
  await call;
});

test("streams that do not end are ended with UNAVAILABLE when their time is up", async () => {
  const server = await serveSample(
    { drainTimeoutMs: 10 },
    {
      async *count(_request, { signal }) {
        yield { value: 1 };
        await once(signal, "abort");
        throw signal.reason;
      },
    },
  );
  const clients = [
    createGrpcTransport({ baseUrl: server.url }),
    createConnectTransport({ baseUrl: server.url, httpVersion: "1.1" }),
  ].map((transport) => createClient(SampleService, transport));
  const streams = clients.map((client) => client.count({})[Symbol.asyncIterator]());
  await Promise.all(streams.map((stream) => stream.next()));
  const ends = Promise.allSettled(streams.map((stream) => stream.next()));
  await server.close();
  for (const end of await ends) {
    const error = ConnectError.from(end.status === "rejected" ? end.reason : undefined);
    expect(error.code).toBe(Code.Unavailable);
    expect(error.findDetails(ErrorInfoSchema)[0]?.reason).toBe("SHUTTING_DOWN");
  }
});

test("a handler that ignores everything cannot keep the server from closing", async () => {
  const server = await serveSample({ drainTimeoutMs: 10 }, { echo: () => new Promise(() => {}) });
  const call = createClient(SampleService, createGrpcTransport({ baseUrl: server.url })).echo({});
  const failed = expect(call).rejects.toThrow(ConnectError);
  await expect.poll(() => server.logged.length).toBeGreaterThan(0);
  await server.close();
  await failed;
  expect(server.shutdownSignal.aborted).toBe(true);
});

test("idle connections are closed at once, and connections that finish say so", async () => {
  const paused = pausedEcho();
  const server = await serveSample({ drainTimeoutMs: 30_000 }, { echo: paused.echo });
  const agent = new Agent({ keepAlive: true });
  onTestFinished(() => agent.destroy());
  const busy = httpRequest(`${server.url}/sample.v1.SampleService/Echo`, {
    agent,
    method: "POST",
    headers: { "content-type": "application/json" },
  });
  busy.end('""');
  await paused.begun;
  const idle = connectHttp2(server.url);
  await once(idle, "remoteSettings");
  const told = once(idle, "goaway");
  const closed = server.close();
  expect((await told)[0]).toBe(0);
  paused.proceed();
  const [response] = await once(busy, "response");
  expect(response.headers.connection).toBe("close");
  response.resume();
  await closed;
});

test("the server deregisters before it turns callers away", async () => {
  const order: string[] = [];
  const registry = await serveSample({
    routes: (router) => {
      router.service(RegistryService, {
        registerService() {
          order.push("registered");
          return { instanceId: "i" };
        },
        async deregisterService() {
          order.push("deregistered");
          order.push((await fetch(`${server.url}/healthz`)).ok ? "answers" : "does not answer");
          return {};
        },
      });
    },
  });
  const server = await serveSample({ register: { url: registry.url } });
  await expect.poll(() => order).toEqual(["registered"]);
  await server.close();
  expect(order).toEqual(["registered", "deregistered", "answers"]);
});

test("closing twice is closing once", async () => {
  const server = await serveSample();
  expect(server.close()).toBe(server.close());
});

test("the first signal closes the server, the second ends the process at once", async () => {
  const paused = pausedEcho();
  const server = await serveSample({ drainTimeoutMs: 30_000 }, { echo: paused.echo });
  const exits: number[] = [];
  const listeners = new Map<string, (signal: NodeJS.Signals) => void>();
  const stop = closeOnSignals(server, {
    on: (name, listener) => listeners.set(name, listener),
    off: (name) => listeners.delete(name),
    exit: (code) => exits.push(code),
  });
  const call = createClient(SampleService, createGrpcTransport({ baseUrl: server.url })).echo({ value: "" });
  await paused.begun;
  listeners.get("SIGTERM")?.("SIGTERM");
  expect(exits).toEqual([]);
  listeners.get("SIGINT")?.("SIGINT");
  expect(exits).toEqual([130]);
  paused.proceed();
  await call;
  await expect.poll(() => exits).toEqual([130, 0]);
  stop();
  expect(listeners.size).toBe(0);
});
