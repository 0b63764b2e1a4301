import { createServer as createHttpServer } from "node:http";
import { createServer, type Socket } from "node:net";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { type Clock, systemClock } from "@toolplane/framework";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { Protocol, type Service } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { registryRoutes } from "./service.ts";
import { emptyRegistry, openRegistry, startServer } from "./test-support/open-registry.ts";
import { described, instance, service, weatherDescriptors } from "./test-support/specs.ts";

let shared: Database;

beforeAll(async () => {
  shared = await openTestDatabase();
});

afterAll(() => shared.close());

const all = { filter: undefined, pageSize: 1_000, pageToken: "" };
const ref = (name: string) => ({ name, environment: "", version: "" });

/** Accepts connections and says nothing. `connected` resolves with the first. */
async function startSilentServer() {
  const sockets = new Set<Socket>();
  const connected = Promise.withResolvers<void>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    connected.resolve();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) {
      socket.destroy();
    }
  });
  const address = server.address();
  const port = address !== null && typeof address === "object" ? address.port : 0;
  return { endpoint: `127.0.0.1:${port}`, sockets, connected: connected.promise };
}

test.for([
  { protocol: "gRPC", transport: createGrpcTransport },
  {
    protocol: "Connect over HTTP/1.1",
    transport: ({ baseUrl }: { baseUrl: string }) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  },
])(
  "a caller of $protocol who leaves during discovery and deregisters leaves nothing behind",
  async ({ transport }) => {
    const registry = await emptyRegistry(shared, { discoveryTimeoutMs: 300 });
    const server = await startServer({ routes: registryRoutes(registry) });
    const client = createClient(RegistryService, transport({ baseUrl: server.url }));
    const silent = await startSilentServer();
    const leave = new AbortController();
    const registering = client.registerService(
      { service: service({ name: "ghost" }), instance: instance({ id: "g", endpoint: silent.endpoint }) },
      { signal: leave.signal },
    );
    await silent.connected;
    leave.abort();
    await expect(registering).rejects.toThrow();
    await expect(client.deregisterService({ target: { case: "instanceId", value: "g" } })).rejects.toThrow(
      /not registered/,
    );
    // Discovery ends, and after it comes a change that is sure to follow what the registration would have written.
    await registry.register(service({ name: "later" }), instance({ endpoint: silent.endpoint }));
    expect(registry.listServices(all).items.map(({ name }) => name)).toEqual(["later"]);
  },
);

test("an instance id that another service uses is refused, and may move between versions of its own", async () => {
  const registry = await emptyRegistry(shared);
  await registry.register(described({ name: "a" }), instance({ id: "1", endpoint: "localhost:1" }));
  for (const other of [{ name: "b" }, { name: "a", environment: "staging" }]) {
    await expect(
      registry.register(described(other), instance({ id: "1", endpoint: "localhost:2" })),
    ).rejects.toMatchObject({ init: { reason: "INSTANCE_ID_TAKEN", resource: { name: "1" } } });
  }
  expect(registry.listServices(all).items.map(({ name }) => name)).toEqual(["a"]);
  await registry.register(
    described({ name: "a", version: "2.0.0" }),
    instance({ id: "1", endpoint: "localhost:1" }),
  );
  await registry.deregister({ instanceId: "1" });
  await registry.register(described({ name: "b" }), instance({ id: "1", endpoint: "localhost:2" }));
  expect(registry.listServices(all).items.map(({ name }) => name)).toEqual(["b"]);
});

test("an instance that hangs holds up its siblings for half of the time at most", async () => {
  const discoveryTimeoutMs = 20_002;
  const half = discoveryTimeoutMs / 2;
  // These two times pass when the test says so, all others by themselves.
  const passes = new Map<number, () => void>();
  const clock: Clock = {
    ...systemClock,
    after(ms, callback) {
      if (ms !== discoveryTimeoutMs && ms !== half) {
        return systemClock.after(ms, callback);
      }
      passes.set(ms, callback);
      return () => passes.delete(ms);
    },
  };
  const registry = await emptyRegistry(shared, { discoveryTimeoutMs }, { clock });
  const silent = await startSilentServer();
  const healthy = await startServer();
  const hanging = registry.register(service({ name: "s" }), instance({ endpoint: silent.endpoint }));
  await silent.connected;
  const waiting = registry.register(service({ name: "s" }), instance({ endpoint: healthy.url }));
  await expect.poll(() => [...passes.keys()]).toEqual([discoveryTimeoutMs, half]);
  passes.get(half)?.();
  const { service: registered } = await waiting;
  // Learnt from the healthy one, while the other is still being asked.
  expect(registered).toMatchObject({ toolCount: 11, problems: [] });
  expect(registered.instances).toHaveLength(1);
  passes.get(discoveryTimeoutMs)?.();
  expect((await hanging).service.instances).toHaveLength(2);
});

test("tools learnt earlier do not replace those learnt later", async () => {
  const [registry, other] = [await emptyRegistry(shared), await openRegistry(shared)];
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<void>();
  let manuals = 0;
  const manual = (name: string) =>
    JSON.stringify({
      utcp_version: "1.0.1",
      manual_version: "1.0.0",
      tools: [
        {
          name,
          description: name,
          inputs: { type: "object" },
          outputs: { type: "object" },
          tool_call_template: { call_template_type: "http", url: "http://127.0.0.1:1/", http_method: "GET" },
        },
      ],
    });
  const source = createHttpServer(async (_request, response) => {
    const turn = manuals++;
    if (turn === 1) {
      asked.resolve();
      await answer.promise;
    }
    response.setHeader("content-type", "application/json").end(manual(turn < 2 ? "old" : "new"));
  });
  await new Promise<void>((resolve) => source.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    source.close();
    source.closeAllConnections();
  });
  const address = source.address();
  const port = address !== null && typeof address === "object" ? address.port : 0;
  const spec = described({
    name: "m",
    source: {
      kind: {
        case: "utcpManual",
        value: { manual: { case: "url", value: `http://127.0.0.1:${port}/utcp` } },
      },
    },
  });
  const copy = instance({ id: "m", endpoint: `http://127.0.0.1:${port}`, protocol: Protocol.HTTP });
  await registry.register(spec, copy);
  expect(registry.getTool("m.old", {})).toBeDefined();

  const refreshing = registry.refresh(ref("m"));
  await asked.promise;
  await other.register(spec, copy);
  answer.resolve();
  await refreshing;
  expect(registry.getTool("m.new", {})).toBeDefined();
  expect(() => registry.getTool("m.old", {})).toThrow();
});

test("whatever many clients of two replicas do at once, the replicas and the database agree", async () => {
  const replicas = [await emptyRegistry(shared), await openRegistry(shared)] as const;
  const failures: unknown[] = [];
  const ignoreGone = (error: unknown) => {
    if (!/does not exist|TOO_MANY|another one/.test(String(error))) {
      failures.push(error);
    }
  };
  let seed = 1;
  const draw = (n: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((seed / 2_147_483_648) * n);
  };
  const acknowledged = new Map<string, string>();
  await Promise.all(
    Array.from({ length: 12 }, async (_, client) => {
      for (let turn = 0; turn < 12; turn++) {
        const registry = replicas[draw(2)] ?? replicas[0];
        const id = `i${client}`;
        const version = `1.${draw(3)}.0`;
        switch (draw(5)) {
          case 0:
            await registry.deregister({ instanceId: id }).catch(ignoreGone);
            acknowledged.delete(id);
            break;
          case 1:
            await registry.renew(id).catch(ignoreGone);
            break;
          case 2:
            await registry.refresh({ name: "w", environment: "", version }).catch(ignoreGone);
            break;
          default:
            await registry
              .register(
                described({ name: "w", version }, weatherDescriptors([`M${draw(3)}`])),
                instance({ id, endpoint: `localhost:${client + 1}` }),
              )
              .catch(ignoreGone);
            acknowledged.set(id, version);
        }
      }
    }),
  );
  expect(failures).toEqual([]);
  const instancesOf = (registry: (typeof replicas)[0]) =>
    new Map(
      registry
        .listServices(all)
        .items.flatMap(({ version, instances }) => instances.map(({ id }) => [id, version] as const)),
    );
  const restarted = await openRegistry(shared);
  expect(instancesOf(restarted)).toEqual(acknowledged);
  for (const registry of replicas) {
    await expect.poll(() => instancesOf(registry)).toEqual(acknowledged);
    // When the same was learnt again is known where it was learnt only.
    const known = ({ items }: { items: readonly Service[] }) =>
      items.map((item) => ({ ...item, discoverTime: undefined }));
    expect(known(registry.listServices(all))).toEqual(known(restarted.listServices(all)));
  }
});
