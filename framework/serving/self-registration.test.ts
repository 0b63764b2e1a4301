import { hostname } from "node:os";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { pino } from "pino";
import { afterEach, expect, it, vi } from "vitest";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { startHttp2Server } from "../test-support/http2-server.ts";
import { advertisedEndpoint, registerServer } from "./self-registration.ts";

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) {
    await cleanup();
  }
});

const server = {
  name: "weather",
  version: "1.2.0",
  address: { address: "127.0.0.1", family: "IPv4", port: 4321 },
  secure: false,
  logger: pino({ level: "silent" }),
  clock: createFakeClock(),
};

it.each([
  ["127.0.0.1", false, undefined, "http://127.0.0.1:4321"],
  ["10.1.2.3", true, undefined, "https://10.1.2.3:4321"],
  ["::1", false, undefined, "http://[::1]:4321"],
  ["0.0.0.0", false, undefined, `http://${hostname()}:4321`],
  ["::", false, undefined, `http://${hostname()}:4321`],
  ["::", false, "10.9.8.7", "http://10.9.8.7:4321"],
  ["::", true, "weather.internal", "https://weather.internal:4321"],
  ["::", false, "weather.internal:80", "http://weather.internal:80"],
  ["::", false, "fd00::7", "http://[fd00::7]:4321"],
  ["::", false, "[fd00::7]:80", "http://[fd00::7]:80"],
  ["::", false, "https://weather.example/api/", "https://weather.example/api"],
] as const)(
  "a server on %s (TLS: %s) that advertises %j is reached at %4$s",
  (address, secure, advertise, url) => {
    expect(advertisedEndpoint({ address, family: "IPv4", port: 4321 }, secure, advertise)).toBe(url);
  },
);

it.each(["", "two words", "ftp://weather", "a:b"])("refuses to advertise %j", (advertise) => {
  expect(() => advertisedEndpoint(server.address, false, advertise)).toThrow(
    /register\.advertise: .* is no address/,
  );
});

it("registers nowhere when no registry is named", () => {
  expect(registerServer({}, server, {})).toBeUndefined();
});

it("registers a server with everything that it says of itself", async () => {
  const register = vi.fn();
  const registry = await startHttp2Server((router) => {
    router.service(RegistryService, {
      registerService(request, { requestHeader }) {
        register(request, requestHeader.get("authorization"));
        return { instanceId: request.instance?.id ?? "" };
      },
      deregisterService: () => ({}),
    });
  });
  cleanups.push(() => registry.close());

  const registration = registerServer(
    {
      environment: "staging",
      title: "Weather",
      description: "Forecasts.",
      tags: ["outdoors"],
      metadata: { team: "sky" },
      headers: [{ name: "x-api-key", value: { case: "secret", value: "weather-key" } }],
      leaseTtlMs: 5_000,
      instanceId: "weather-1",
    },
    server,
    { TOOLPLANE_URL: registry.url, TOOLPLANE_TOKEN: "from-env" },
  );
  cleanups.push(() => registration?.stop());

  await expect.poll(() => register).toHaveBeenCalledOnce();
  expect(register.mock.calls[0]).toMatchObject([
    {
      service: {
        name: "weather",
        version: "1.2.0",
        environment: "staging",
        title: "Weather",
        description: "Forecasts.",
        tags: ["outdoors"],
        metadata: { team: "sky" },
        headers: [{ name: "x-api-key", value: { case: "secret", value: "weather-key" } }],
      },
      instance: {
        id: "weather-1",
        endpoint: "http://127.0.0.1:4321",
        protocol: Protocol.GRPC,
        leaseTtl: { seconds: 5n },
      },
    },
    "Bearer from-env",
  ]);
});

it.each([
  ["127.0.0.1", "http://0.0.0.0:1", 1],
  ["127.0.0.1", "127.0.0.1:1", 0],
  ["10.1.2.3", "http://0.0.0.0:1", 0],
])(
  "a server on %s that registers at %s is warned %d times that it cannot be reached",
  async (address, url, times) => {
    const logger = { ...pino({ level: "silent" }), debug: vi.fn(), info: vi.fn(), warn: vi.fn() };
    const registration = registerServer(
      { url },
      { ...server, logger, address: { ...server.address, address } },
      {},
    );

    expect(logger.warn).toHaveBeenCalledTimes(times);
    await registration?.stop();
  },
);
