import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import {
  type RegisterServiceRequest,
  RegisterServiceResponseSchema,
  RegistryService,
  RenewLeaseResponseSchema,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createFakeClock, type FakeClock } from "../test-support/fake-clock.ts";
import { type Http2Server, startHttp2Server } from "../test-support/http2-server.ts";
import {
  createRegistration,
  type Registration,
  type RegistrationOptions,
  type RegistrationState,
} from "./registration.ts";

const LEASE_MS = 30_000;
const HEARTBEAT_MS = 10_000;

/** A registry as far as instances see it: it grants leases and forgets them when it is restarted. */
class TestRegistry {
  readonly registered: RegisterServiceRequest[] = [];
  readonly authorizations = new Set<string | null>();
  readonly instances = new Set<string>();
  renewals = 0;
  deregistrations: string[] = [];
  leaseMs: number | undefined = LEASE_MS;
  /** What happens before a request is answered. */
  before: (signal: AbortSignal) => void | Promise<void> = () => {};

  readonly routes = (router: ConnectRouter): void => {
    router.service(RegistryService, {
      registerService: async (request, { requestHeader, signal }) => {
        this.registered.push(request);
        this.authorizations.add(requestHeader.get("authorization"));
        await this.before(signal);
        const id = request.instance?.id ?? "";
        this.instances.add(id);
        return create(RegisterServiceResponseSchema, {
          instanceId: id,
          ...(this.leaseMs !== undefined && {
            leaseTtl: durationFromMs(this.leaseMs),
            heartbeatInterval: durationFromMs(Math.floor(this.leaseMs / 3)),
          }),
        });
      },
      renewLease: async ({ instanceId }, { requestHeader, signal }) => {
        this.authorizations.add(requestHeader.get("authorization"));
        await this.before(signal);
        if (!this.instances.has(instanceId)) {
          throw new ConnectError("no such instance", Code.NotFound);
        }
        this.renewals++;
        return create(RenewLeaseResponseSchema, { leaseTtl: durationFromMs(this.leaseMs ?? LEASE_MS) });
      },
      deregisterService: async ({ target }, { signal }) => {
        this.deregistrations.push(target.value?.toString() ?? "");
        await this.before(signal);
        this.instances.delete(target.case === "instanceId" ? target.value : "");
        return { removedInstances: 1 };
      },
    });
  };
}

interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly code?: string;
}

let clock: FakeClock;
let registry: TestRegistry;
let server: Http2Server | undefined;
let registration: Registration | undefined;
let states: RegistrationState[];
let logged: LogLine[];

beforeEach(() => {
  clock = createFakeClock();
  registry = new TestRegistry();
  states = [];
  logged = [];
});

afterEach(async () => {
  await registration?.stop();
  registration = undefined;
  await server?.close();
  server = undefined;
});

function register(url: string, options: Partial<RegistrationOptions> = {}): Registration {
  registration = createRegistration({
    url,
    service: { name: "weather", version: "1.2.0", tags: ["outdoors"] },
    instance: { endpoint: "http://127.0.0.1:4321" },
    logger: pino({ level: "debug" }, { write: (line: string) => logged.push(JSON.parse(line)) }),
    clock,
    ...options,
  });
  registration.onStateChange((state) => states.push(state));
  return registration;
}

/** Lets time pass until something holds. */
async function passUntil(holds: () => void, stepMs = 500): Promise<void> {
  await vi.waitFor(
    () => {
      clock.advance(stepMs);
      holds();
    },
    { interval: 2, timeout: 20_000 },
  );
}

async function becomes(state: RegistrationState): Promise<void> {
  await expect.poll(() => registration?.state, { interval: 2 }).toBe(state);
}

/** What people see: everything above debug. */
function visible(): string[] {
  return logged.filter(({ level }) => level > 20).map(({ msg, code }) => (code ? `${msg} (${code})` : msg));
}

describe("an instance", () => {
  it("registers at once as what it is", async () => {
    server = await startHttp2Server(registry.routes);
    const { instanceId } = register(server.url, { token: "secret" });
    expect(registration?.state).toBe("registering");
    await becomes("registered");

    expect(registry.registered).toMatchObject([
      {
        service: { name: "weather", version: "1.2.0", tags: ["outdoors"] },
        instance: { id: instanceId, endpoint: "http://127.0.0.1:4321" },
        requestId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      },
    ]);
    expect(instanceId).toMatch(new RegExp(`^[a-zA-Z0-9._-]+-${process.pid}-[0-9a-f]{8}$`));
    expect(registry.authorizations).toEqual(new Set(["Bearer secret"]));
    expect(visible()).toEqual(["registered"]);
    expect(JSON.stringify(logged)).not.toContain("secret");
  });

  it("keeps the id that it was given", async () => {
    server = await startHttp2Server(registry.routes);
    register(server.url, { instance: { id: "weather-1", endpoint: "127.0.0.1:1" } });
    await becomes("registered");

    expect([...registry.instances]).toEqual(["weather-1"]);
  });

  it.each([0, 0.999])("renews its lease a little before each heartbeat is due", async (drawn) => {
    server = await startHttp2Server(registry.routes);
    register(server.url, { random: () => drawn });
    await becomes("registered");

    for (let beat = 1; beat <= 3; beat++) {
      await expect.poll(() => clock.pending).toBe(1);
      clock.advance(HEARTBEAT_MS * 0.8 - 1);
      expect(clock.pending).toBe(1);
      clock.advance(HEARTBEAT_MS * 0.2 + 1);
      await expect.poll(() => registry.renewals).toBe(beat);
    }
    expect(registry.registered).toHaveLength(1);
    expect(visible()).toEqual(["registered"]);
  });

  it("renews nothing when its registration is permanent", async () => {
    registry.leaseMs = undefined;
    server = await startHttp2Server(registry.routes);
    register(server.url);
    await becomes("registered");

    expect(clock.pending).toBe(0);
    await registration?.stop();
    expect(registry.instances.size).toBe(0);
  });
});

describe("a registry that is in trouble", () => {
  it("is tried until it is up, and complained about once", async () => {
    const placeholder = await startHttp2Server(() => {});
    await placeholder.close();
    register(placeholder.url);
    await passUntil(() => expect(logged.length).toBeGreaterThan(5));
    expect(registration?.state).toBe("registering");
    expect(visible()).toEqual(["registry does not accept the registration; trying on (Unavailable)"]);

    server = await startHttp2Server(registry.routes, placeholder.port);
    await passUntil(() => expect(registration?.state).toBe("registered"));

    expect(states).toEqual(["registered"]);
    expect(visible().slice(1)).toEqual(["registered"]);
  });

  it("gets the instance again after it was restarted and has forgotten it", async () => {
    server = await startHttp2Server(registry.routes);
    register(server.url);
    await becomes("registered");
    await server.close();
    registry.instances.clear();

    server = await startHttp2Server(registry.routes, server.port);
    await passUntil(() => expect(registry.registered).toHaveLength(2));
    await becomes("registered");

    expect(states).toEqual(["registered", "lost", "registered"]);
    expect([...registry.instances]).toEqual([registration?.instanceId]);
  });

  it("does not unsettle an instance whose lease outlasts it", async () => {
    server = await startHttp2Server(registry.routes);
    register(server.url);
    await becomes("registered");
    await server.close();
    await passUntil(() => expect(visible()).toHaveLength(2));
    expect(registration?.state).toBe("registered");

    server = await startHttp2Server(registry.routes, server.port);
    await passUntil(() => expect(registry.renewals).toBe(1), 100);

    await expect.poll(() => visible()).toHaveLength(3);
    expect(states).toEqual(["registered"]);
    expect(visible()).toEqual([
      "registered",
      "registry does not accept the registration; trying on (Unavailable)",
      "lease is renewed again",
    ]);
  });

  it("has lost the instance when it stays away longer than the lease", async () => {
    server = await startHttp2Server(registry.routes);
    register(server.url);
    await becomes("registered");
    await server.close();
    await passUntil(() => expect(registration?.state).toBe("lost"), 5_000);
    registry.instances.clear();

    server = await startHttp2Server(registry.routes, server.port);
    await passUntil(() => expect(registration?.state).toBe("registered"));

    expect(states).toEqual(["registered", "lost", "registered"]);
    expect(visible().filter((line) => line.startsWith("registration lost"))).toHaveLength(1);
  });

  it("is tried on although it refuses, and each kind of refusal is told once", async () => {
    let code = Code.PermissionDenied;
    registry.before = () => {
      throw new ConnectError("not you", code);
    };
    server = await startHttp2Server(registry.routes);
    register(server.url);
    await passUntil(() => expect(registry.registered.length).toBeGreaterThan(3));
    code = Code.InvalidArgument;
    const before = registry.registered.length;
    await passUntil(() => expect(registry.registered.length).toBeGreaterThan(before + 3));
    registry.before = () => {};
    await passUntil(() => expect(registration?.state).toBe("registered"));

    expect(visible()).toEqual([
      "registry does not accept the registration; trying on (PermissionDenied)",
      "registry does not accept the registration; trying on (InvalidArgument)",
      "registered",
    ]);
  });

  it("is not waited for longer than the lease lasts", async () => {
    registry.leaseMs = 1_000;
    server = await startHttp2Server(registry.routes);
    register(server.url);
    await becomes("registered");
    let hung = 0;
    registry.before = async (signal) => {
      hung++;
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    };
    await expect.poll(() => clock.pending).toBe(1);
    clock.advance(400);
    await expect.poll(() => hung).toBe(1);
    registry.before = () => {};

    await expect
      .poll(() => visible())
      .toContain("registry does not accept the registration; trying on (DeadlineExceeded)");
    await passUntil(() => expect(registry.renewals).toBeGreaterThan(0), 10);
  });

  it("is asked less and less often, at least every 10 s", async () => {
    const placeholder = await startHttp2Server(() => {});
    await placeholder.close();
    const delays: number[] = [];
    const watched: FakeClock = {
      ...clock,
      after(ms, callback) {
        delays.push(ms);
        return clock.after(ms, callback);
      },
    };
    register(placeholder.url, { clock: watched, random: () => 0.5 });
    await passUntil(() => expect(delays.length).toBeGreaterThan(8), 1_000);

    expect(delays.slice(0, 8)).toEqual([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
  });
});

describe("stop", () => {
  it("deregisters once, however often it is called", async () => {
    server = await startHttp2Server(registry.routes);
    const { instanceId, stop } = register(server.url);
    await becomes("registered");

    await Promise.all([stop(), stop()]);
    await stop();

    expect(registry.deregistrations).toEqual([instanceId]);
    expect(registry.instances.size).toBe(0);
    expect(states).toEqual(["registered", "stopped"]);
    expect(clock.pending).toBe(0);
  });

  it("does not wait for a registration that is under way, and leaves none behind", async () => {
    server = await startHttp2Server(registry.routes);
    const aborted = vi.fn();
    registry.before = async (signal) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      aborted();
      signal.throwIfAborted();
    };
    register(server.url);
    await expect.poll(() => registry.registered).toHaveLength(1);
    registry.before = () => {};

    await registration?.stop();

    await expect.poll(() => aborted).toHaveBeenCalledOnce();
    expect(registry.deregistrations).toEqual([registration?.instanceId]);
    expect(registry.instances.size).toBe(0);
  });

  it("succeeds when the registry is gone", async () => {
    server = await startHttp2Server(registry.routes);
    register(server.url);
    await becomes("registered");
    await server.close();

    await registration?.stop();

    expect(registration?.state).toBe("stopped");
    expect(visible().at(-1)).toBe("could not deregister; the lease will run out (Unavailable)");
  });

  it("gives up on a registry that does not answer", async () => {
    server = await startHttp2Server(registry.routes);
    register(server.url);
    await becomes("registered");
    registry.before = (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve()));

    await registration?.stop();

    expect(registration?.state).toBe("stopped");
    expect(visible().at(-1)).toBe("could not deregister; the lease will run out (DeadlineExceeded)");
  });
});

it("outlives a listener that fails", async () => {
  server = await startHttp2Server(registry.routes);
  register(server.url);
  registration?.onStateChange(() => {
    throw new Error("oops");
  });
  await becomes("registered");

  await passUntil(() => expect(registry.renewals).toBe(1));
  expect(states).toEqual(["registered"]);
});

it("calls no listener that has left", async () => {
  server = await startHttp2Server(registry.routes);
  const listener = vi.fn();
  register(server.url).onStateChange(listener)();
  await becomes("registered");

  expect(listener).not.toHaveBeenCalled();
});

it("takes an address without a scheme for cleartext", async () => {
  server = await startHttp2Server(registry.routes);
  register(`127.0.0.1:${server.port}`);

  await becomes("registered");
});

it.each(["ftp://127.0.0.1", "http://", "::"])("refuses %j as an address", (url) => {
  expect(() => register(url)).toThrow(/register\.url: .* is no address of a registry/);
});
