import { createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";

const transports = {
  "gRPC over HTTP/2": (baseUrl: string) => createGrpcTransport({ baseUrl }),
  "gRPC-Web over HTTP/1.1": (baseUrl: string) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "gRPC-Web over HTTP/2": (baseUrl: string) => createGrpcWebTransport({ baseUrl, httpVersion: "2" }),
  "Connect JSON over HTTP/1.1": (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect binary over HTTP/2": (baseUrl: string) =>
    createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true }),
};

test.each(Object.entries(transports))("serves unary calls and streams with %s", async (_, connect) => {
  const server = await serveSample();
  const client = createClient(SampleService, connect(server.url));
  expect((await client.echo({ value: "hello" })).value).toBe("hello");
  const numbers: number[] = [];
  for await (const { value } of client.count({ value: 3 })) {
    numbers.push(value);
  }
  expect(numbers).toEqual([1, 2, 3]);
});
