import { once } from "node:events";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createLogger, systemClock } from "@toolplane/framework";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { expect, onTestFinished, test } from "vitest";
import {
  authorityCertificate,
  clientCertificate,
  clientKey,
  serverCertificate,
  serverKey,
} from "../framework/test-support/certificates.ts";
import { createApp } from "./app.ts";
import { loadSettings } from "./config/load.ts";

test("a server calls its own tools although its port serves TLS and asks for certificates", async () => {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-app-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const file = async (name: string, content: string) => {
    await writeFile(join(folder, name), content);
    return join(folder, name);
  };
  const tls = {
    certFile: await file("cert.pem", serverCertificate),
    keyFile: await file("key.pem", serverKey),
    clientCaFile: await file("ca.pem", authorityCertificate),
  };
  const app = await createApp({
    settings: { ...loadSettings({ listen: "127.0.0.1:0", dataDir: join(folder, "data") }, {}), tls },
    clock: systemClock,
    env: {},
    logger: createLogger({ level: "silent" }),
  });
  onTestFinished(() => app.close());
  expect(app.url).toMatch(/^https:/);
  const client = createClient(
    ToolService,
    createGrpcTransport({
      baseUrl: app.url,
      nodeOptions: { ca: authorityCertificate, cert: clientCertificate, key: clientKey },
    }),
  );
  const { result } = await client.callTool({ call: { tool: "toolplane.ListServices" } });
  expect(result?.value).toMatchObject({ case: "json" });

  const watch = client.callToolStream({ call: { tool: "toolplane.WatchServices" } });
  const events: string[] = [];
  for await (const { event } of watch) {
    events.push(event.case ?? "");
    if (event.case === "result") {
      break;
    }
  }
  expect(events).toEqual(["started", "result"]);
});

test("a taken port is noticed before a database is started, and the setting to change is named", async () => {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-app-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const other = createServer().listen(0, "127.0.0.1");
  onTestFinished(() => void other.close());
  await once(other, "listening");
  // A TCP server's address is always an object.
  const listen = `127.0.0.1:${(other.address() as AddressInfo).port}`;
  const starting = createApp({
    settings: loadSettings({ listen, dataDir: join(folder, "data") }, {}),
    clock: systemClock,
    env: {},
    logger: createLogger({ level: "silent" }),
  });
  await expect(starting).rejects.toMatchObject({
    init: {
      reason: "ADDRESS_IN_USE",
      preconditions: [{ subject: "listen", description: expect.stringContaining("TOOLPLANE_LISTEN") }],
    },
  });
  expect(await readdir(folder)).toEqual([]);
});
