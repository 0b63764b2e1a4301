import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";
import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { envelope, rawGrpc } from "../test-support/raw-client.ts";
import { serveSample } from "../test-support/sample-server.ts";

const echo = "/sample.v1.SampleService/Echo";
const echoByGet = `${echo}?connect=v1&encoding=json&message=%22hi%22`;

/** What a browser sends for a page without TLS that reads from its own origin: nothing but the name. */
async function getAs(url: string, host: string, path: string) {
  const [response] = (await once(get(url + path, { headers: { host } }), "response")) as [IncomingMessage];
  return { status: response.statusCode, body: await text(response) };
}

function grpcAs(url: string, authority: string) {
  return rawGrpc(url, echo, envelope(new Uint8Array()), { ":authority": authority });
}

test.each([echoByGet, "/healthz", "/readyz", "/nowhere"])(
  "a page that resolves its own name to this machine cannot read %s",
  async (path) => {
    const { url, address } = await serveSample();
    const { status, body } = await getAs(url, `evil.example:${address.port}`, path);
    expect(status).toBe(403);
    expect(JSON.parse(body)).toMatchObject({
      code: "permission_denied",
      message: expect.stringContaining(
        `"http://evil.example:${address.port}" to its allowed origins (cors.allowed_origins)`,
      ),
      details: [{ debug: { reason: "HOST_NOT_ALLOWED" } }],
    });
  },
);

test.each([
  "localhost",
  "LOCALHOST:7400",
  "localhost.",
  "app.localhost:1",
  "127.0.0.1",
  "127.8.9.1:7400",
  "[::1]:7400",
  "",
])('a local server may be called as "%s"', async (host) => {
  const { url } = await serveSample();
  expect(await getAs(url, host, echoByGet)).toMatchObject({ status: 200, body: '"hi"' });
});

test.each([
  "localhost.evil.example",
  "127.0.0.1.evil.example",
  "evil-localhost",
  "192.0.2.1",
  "[::2]",
  "a b",
  "evil.example@",
])('a local server may not be called as "%s"', async (host) => {
  const { url } = await serveSample();
  expect(await getAs(url, host, echoByGet)).toMatchObject({ status: 403 });
});

test("gRPC clients that come under a name of the network are told which option to set", async () => {
  const { url } = await serveSample();
  const refused = await grpcAs(url, "toolplane.tools.svc.cluster.local:7400");
  expect(refused).toMatchObject({
    code: Code.PermissionDenied,
    message: expect.stringMatching(
      /svc\.cluster\.local:7400": call it as localhost .* \(cors\.allowed_origins/,
    ),
    info: { reason: "HOST_NOT_ALLOWED" },
  });
  expect((await grpcAs(url, "localhost")).code).toBe(0);
});

test("a reverse proxy on the same machine passes on the names of the allowed origins", async () => {
  const { url } = await serveSample({ cors: { allowedOrigins: ["https://Tools.example.com"] } });
  for (const host of ["tools.example.com", "tools.example.com:443", "localhost"]) {
    expect(await getAs(url, host, echoByGet)).toMatchObject({ status: 200 });
    expect((await grpcAs(url, host)).code).toBe(0);
  }
  expect(await getAs(url, "evil.example", echoByGet)).toMatchObject({ status: 403 });
});

test("a server that other machines can reach, or that any origin may call, takes every name", async () => {
  const reachable = await serveSample({ listen: "0.0.0.0:0" });
  expect(await getAs(reachable.url, "tools.internal", "/healthz")).toMatchObject({ status: 200 });
  const open = await serveSample({ cors: { allowedOrigins: ["*"] } });
  expect(await getAs(open.url, "tools.internal", "/healthz")).toMatchObject({ status: 200 });
});
