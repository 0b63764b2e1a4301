import { type AddressInfo, createServer, type Socket } from "node:net";
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { anyPack, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ToolCall } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { ToolCallSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { build } from "esbuild";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import * as node from "./node.ts";
import { aTool, type StubServer, startStubServer } from "./testing/stub-server.ts";
import * as web from "./web.ts";

let server: StubServer;
let calls: ToolCall[] = [];
/** How many calls the server has seen cancelled. */
let cancellations = 0;

beforeAll(async () => {
  server = await startStubServer(
    { getTool: ({ name }) => ({ tool: aTool({ name }) }) },
    {
      callTool({ call }) {
        if (call !== undefined) calls.push(call);
        if (call?.tool === "broken") throw new ConnectError("broken", Code.Unavailable);
        if (call?.tool === "message")
          return { result: { value: { case: "message", value: anyPack(ToolCallSchema, call) } } };
        return { result: aResult({ tool: call?.tool ?? "", big: "9007199254740993" }) };
      },
      async *callToolStream({ call }, { signal }) {
        if (call !== undefined) calls.push(call);
        yield { event: { case: "started", value: { tool: call?.tool ?? "" } } };
        for (const n of [1, 2, 3]) yield { event: { case: "result", value: aResult({ n }) } };
        if (call?.tool === "endless") {
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          cancellations += 1;
        }
        yield { event: { case: "finished", value: { resultCount: 3 } } };
      },
    },
  );
});
afterAll(() => server[Symbol.asyncDispose]());
beforeEach(() => {
  calls = [];
  cancellations = 0;
});

function aResult(value: JsonValue) {
  return { value: { case: "json" as const, value: fromJson(ValueSchema, value) } };
}

/** The clients for Node, and the one for browsers, which only needs `fetch`. */
const clients = [
  {
    name: "Node over HTTP/1.1",
    create: (options: { token?: web.TokenSource } = {}) =>
      node.createToolplane({ url: server.url, ...options }),
  },
  {
    name: "browsers",
    create: (options: { token?: web.TokenSource } = {}) =>
      web.createToolplane({ url: server.url, ...options }),
  },
];

describe.each(clients)("the client for $name", ({ create }) => {
  it("calls a tool with JSON and returns JSON", async () => {
    const result = await create().callTool("weather.GetForecast", { city: "Berlin" }, { timeoutMs: 1_500 });
    expect(result).toEqual({ tool: "weather.GetForecast", big: "9007199254740993" });
    expect(calls[0]?.input).toEqual({ case: "arguments", value: { city: "Berlin" } });
    expect(calls[0]?.timeout).toMatchObject({ seconds: 1n, nanos: 500_000_000 });
  });

  it("sends a list of arguments as a stream of messages", async () => {
    await create().callTool("weather.Record", [{ n: 1 }, { n: 2 }]);
    expect(calls[0]?.argumentStream).toEqual([{ n: 1 }, { n: 2 }]);
    expect(calls[0]?.input.case).toBeUndefined();
  });

  it("yields the results of a tool that streams as they come", async () => {
    const results: JsonValue[] = [];
    for await (const result of create().callToolStream("weather.Watch")) results.push(result);
    expect(results).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
  });

  it("cancels the call when the consumer leaves the stream", async () => {
    for await (const result of create().callToolStream("endless")) {
      expect(result).toEqual({ n: 1 });
      break;
    }
    await expect.poll(() => cancellations).toBe(1);
  });

  it("cancels the call when the signal aborts", async () => {
    const controller = new AbortController();
    const read = async () => {
      for await (const _ of create().callToolStream("endless", {}, { signal: controller.signal }))
        controller.abort();
    };
    await expect(read()).rejects.toMatchObject({ code: Code.Canceled });
    await expect.poll(() => cancellations).toBe(1);
  });

  it("passes the server's errors on as they are", async () => {
    await expect(create().callTool("broken")).rejects.toMatchObject({
      code: Code.Unavailable,
      rawMessage: "broken",
    });
  });

  it("refuses a result that is no JSON", async () => {
    await expect(create().callTool("message")).rejects.toMatchObject({ code: Code.Internal });
  });

  it("presents a token, asking anew for every request where it is a function", async () => {
    let rotation = 0;
    const rotating = create({ token: async () => `token-${++rotation}` });
    await rotating.registry.getTool({ name: "a" });
    await rotating.registry.getTool({ name: "a" });
    await create({ token: "fixed" }).registry.getTool(
      { name: "a" },
      { headers: { authorization: "Basic eA==" } },
    );
    expect(server.requests.slice(-3).map((headers) => headers.get("authorization"))).toEqual([
      "Bearer token-1",
      "Bearer token-2",
      "Basic eA==",
    ]);
  });

  it("limits a timeout to a day, which every implementation can hold", async () => {
    await create().callTool("weather.GetForecast", {}, { timeoutMs: 1e12 });
    expect(calls[0]?.timeout?.seconds).toBe(86_400n);
    expect(server.requests.at(-1)?.get("connect-timeout-ms")).toMatch(/^\d{1,8}$/);
  });
});

describe("the client for Node", () => {
  it("gives up on a server that does not answer", async () => {
    const sockets: Socket[] = [];
    const silent = createServer((socket) => sockets.push(socket));
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const { port } = silent.address() as AddressInfo; // A TCP server has no other kind of address.
    const toolplane = node.createToolplane({ url: `http://127.0.0.1:${port}`, defaultTimeoutMs: 50 });
    await expect(toolplane.registry.getTool({ name: "a" })).rejects.toMatchObject({
      code: Code.DeadlineExceeded,
    });
    toolplane.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => silent.close(resolve));
  });

  it("can be given a transport of its own", async () => {
    const { createConnectTransport } = await import("@connectrpc/connect-node");
    const transport = createConnectTransport({
      baseUrl: server.url,
      httpVersion: "1.1",
      useBinaryFormat: false,
    });
    const toolplane = node.createToolplane({ transport, token: "secret" });
    expect((await toolplane.registry.getTool({ name: "a" })).tool?.name).toBe("a");
    expect(server.requests.at(-1)?.get("authorization")).toBe("Bearer secret");
    toolplane.close();
  });
});

describe("the package for browsers", () => {
  it.each(["web.ts", "index.ts"])("bundles %s without anything of Node", async (entry) => {
    const { outputFiles, metafile } = await build({
      entryPoints: [new URL(entry, import.meta.url).pathname],
      bundle: true,
      write: false,
      minify: true,
      metafile: true,
      format: "esm",
      platform: "browser",
      conditions: ["toolplane-source"],
      logLevel: "silent",
    });
    const inputs = Object.keys(metafile.inputs);
    expect(inputs.filter((path) => /connect-node|framework|node:/.test(path))).toEqual([]);
    const imports = Object.values(metafile.outputs).flatMap((output) => output.imports);
    expect(imports).toEqual([]);
    // The registry's descriptors are most of it; a surprise here is a dependency that crept in.
    expect(outputFiles[0]?.contents.byteLength).toBeLessThan(400_000);
  });
});
