import { expect, test } from "vitest";
import { serveSample } from "../test-support/sample-server.ts";

const echo = "/sample.v1.SampleService/Echo";

async function callFrom(url: string, origin: string, headers: Record<string, string> = {}) {
  const response = await fetch(url + echo, {
    method: "POST",
    headers: { origin, "content-type": "application/json", ...headers },
    body: '"hi"',
  });
  return { status: response.status, headers: response.headers };
}

test.each(["http://localhost:5173", "http://127.0.0.1", "https://app.localhost:3000", "http://[::1]:8080"])(
  "the local origin %s may call a local server",
  async (origin) => {
    const server = await serveSample();
    const { status, headers } = await callFrom(server.url, origin);
    expect(status).toBe(200);
    expect(headers.get("access-control-allow-origin")).toBe(origin);
    expect(headers.get("vary")).toBe("Origin");
    expect(headers.get("access-control-expose-headers")).toMatch(
      /grpc-status.*grpc-message.*x-correlation-id/i,
    );
  },
);

test.each(["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example"])(
  "the origin %s is refused by a local server",
  async (origin) => {
    const server = await serveSample();
    const { status, headers } = await callFrom(server.url, origin);
    expect(status).toBe(403);
    expect(headers.get("access-control-allow-origin")).toBeNull();
  },
);

test("only the listed origins are allowed, exactly", async () => {
  const server = await serveSample({ cors: { allowedOrigins: ["https://tools.example.com"] } });
  expect((await callFrom(server.url, "https://tools.example.com")).status).toBe(200);
  for (const origin of [
    "https://tools.example.com.evil.example",
    "http://tools.example.com",
    "http://localhost:1",
  ]) {
    expect((await callFrom(server.url, origin)).status).toBe(403);
  }
});

test("an asterisk allows every origin", async () => {
  const server = await serveSample({ cors: { allowedOrigins: ["*"] } });
  expect((await callFrom(server.url, "https://anywhere.example")).status).toBe(200);
});

test("the server's own origin is always allowed", async () => {
  const server = await serveSample({ cors: { allowedOrigins: [] } });
  expect((await callFrom(server.url, server.url)).status).toBe(200);
});

test("a preflight is answered with what browsers need for every protocol", async () => {
  const server = await serveSample({ cors: { allowedHeaders: ["X-Tenant"] } });
  const response = await fetch(server.url + echo, {
    method: "OPTIONS",
    headers: {
      origin: "http://localhost:5173",
      "access-control-request-method": "POST",
      "access-control-request-headers": "connect-protocol-version,content-type",
    },
  });
  expect(response.status).toBe(204);
  expect(response.headers.get("access-control-allow-methods")).toBe("POST, GET");
  const allowed = response.headers.get("access-control-allow-headers")?.toLowerCase();
  for (const name of [
    "connect-protocol-version",
    "connect-timeout-ms",
    "x-grpc-web",
    "grpc-timeout",
    "authorization",
    "x-tenant",
  ]) {
    expect(allowed).toContain(name);
  }
});
