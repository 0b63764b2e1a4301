import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import {
  Health as HealthService,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Http2Server, startHttp2Server } from "../test-support/http2-server.ts";
import { createHealth, type Health } from "./health.ts";

const { SERVING, NOT_SERVING, SERVICE_UNKNOWN, UNKNOWN } = ServingStatus;

let health: Health;
let server: Http2Server;
let connection: Http2SessionManager;

beforeEach(async () => {
  health = createHealth(["acme.Weather"]);
  server = await startHttp2Server(health.routes);
  connection = new Http2SessionManager(server.url);
});

afterEach(async () => {
  connection.abort();
  await server.close();
});

function client() {
  return createClient(
    HealthService,
    createGrpcTransport({ baseUrl: server.url, sessionManager: connection }),
  );
}

/** Reads a watch one status at a time. */
function watch(service: string, options?: { signal?: AbortSignal; timeoutMs?: number }) {
  const stream = client().watch({ service }, options)[Symbol.asyncIterator]();
  return {
    async next() {
      const { done, value } = await stream.next();
      return done ? "end" : value.status;
    },
  };
}

describe("Check", () => {
  it("answers for the whole server and for each service", async () => {
    health.set("", "SERVING");

    expect((await client().check({})).status).toBe(SERVING);
    expect((await client().check({ service: "acme.Weather" })).status).toBe(NOT_SERVING);
  });

  it("refuses services that the server does not know", async () => {
    const error = await client()
      .check({ service: "acme.Unheard" })
      .catch((reason: unknown) => ConnectError.from(reason));

    expect(error).toMatchObject({
      code: Code.NotFound,
      rawMessage: 'the server knows no service "acme.Unheard"',
    });
  });
});

it("lists every service with its state", async () => {
  health.set("", "SERVING");
  health.set("acme.News", "UNKNOWN");

  const { statuses } = await client().list({});

  expect(Object.fromEntries(Object.entries(statuses).map(([name, { status }]) => [name, status]))).toEqual({
    "": SERVING,
    "acme.Weather": NOT_SERVING,
    "acme.News": UNKNOWN,
  });
});

describe("Watch", () => {
  it("tells the state and then each change of that service alone", async () => {
    const watched = watch("acme.Weather");
    expect(await watched.next()).toBe(NOT_SERVING);

    health.set("acme.Weather", "NOT_SERVING");
    health.set("acme.News", "SERVING");
    health.set("acme.Weather", "SERVING");
    expect(await watched.next()).toBe(SERVING);

    health.set("acme.Weather", "UNKNOWN");
    expect(await watched.next()).toBe(UNKNOWN);
  });

  it("waits for a service that the server does not know yet", async () => {
    const watched = watch("acme.News");
    expect(await watched.next()).toBe(SERVICE_UNKNOWN);

    health.set("acme.News", "SERVING");
    expect(await watched.next()).toBe(SERVING);
  });

  it("spares a watcher the states that it was too slow for", async () => {
    const watched = watch("acme.Weather");
    expect(await watched.next()).toBe(NOT_SERVING);

    for (let i = 0; i < 1_000; i++) {
      health.set("acme.Weather", "SERVING");
      health.set("acme.Weather", "UNKNOWN");
    }

    expect(await watched.next()).toBe(UNKNOWN);
    health.close();
    expect(await watched.next()).toBe(NOT_SERVING);
    expect(await watched.next()).toBe("end");
  });

  it("tells many watchers, of whom some have left", async () => {
    const leaving = new AbortController();
    const gone = watch("", { signal: leaving.signal });
    const watchers = Array.from({ length: 50 }, () => watch(""));
    expect(await Promise.all([gone, ...watchers].map((each) => each.next()))).toEqual(
      Array.from({ length: 51 }, () => NOT_SERVING),
    );

    leaving.abort();
    await expect(gone.next()).rejects.toMatchObject({ code: Code.Canceled });
    health.set("", "SERVING");

    expect(new Set(await Promise.all(watchers.map((each) => each.next())))).toEqual(new Set([SERVING]));
  });

  it("ends with DEADLINE_EXCEEDED when its time is up", async () => {
    const watched = watch("", { timeoutMs: 1_000 });
    expect(await watched.next()).toBe(NOT_SERVING);

    await expect(watched.next()).rejects.toMatchObject({ code: Code.DeadlineExceeded });
  });
});

describe("a server that drains", () => {
  it("serves nothing any more, and keeps watchers", async () => {
    health.set("", "SERVING");
    health.set("acme.Weather", "SERVING");
    const watched = watch("acme.Weather");
    expect(await watched.next()).toBe(SERVING);

    health.drain();
    health.set("acme.Weather", "SERVING");

    expect(await watched.next()).toBe(NOT_SERVING);
    expect((await client().check({})).status).toBe(NOT_SERVING);
    expect(health.get("acme.Weather")).toBe("NOT_SERVING");
  });

  it("ends all watches when it closes, those that come later too", async () => {
    const watched = watch("");
    expect(await watched.next()).toBe(NOT_SERVING);

    health.close();

    expect(await watched.next()).toBe("end");
    const late = watch("");
    expect(await late.next()).toBe(NOT_SERVING);
    expect(await late.next()).toBe("end");
  });
});
