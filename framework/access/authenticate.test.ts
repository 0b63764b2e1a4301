import { once } from "node:events";
import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createTransport as grpcTransport } from "@connectrpc/connect/protocol-grpc";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ErrorInfoSchema, RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { ServerReflection } from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionAlpha } from "@toolplane/gen/grpc/reflection/v1alpha/reflection_pb.js";
import { describe, expect, onTestFinished, test } from "vitest";
import { domainConnectError } from "../errors/connect-error.ts";
import { callContext, type Principal, principalOf } from "../interceptors/call-context.ts";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { sampleImplementation } from "../test-support/sample-implementation.ts";
import { type SampleServer, serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { transports } from "../test-support/transports.ts";
import { authenticate } from "./authenticate.ts";
import { roleOf } from "./role-of.ts";
import type { Verdict, Verifier } from "./verifier.ts";

/** Knows these tokens and nothing else. */
const verdicts: Readonly<Record<string, Verdict>> = {
  "reader-token": { kind: "accepted", identity: { id: "user:rita", role: "reader" } },
  "operator-token": { kind: "accepted", identity: { id: "key:ops", role: "operator" } },
  "roleless-token": {
    kind: "accepted",
    identity: { id: "user:nobody", role: undefined, missingRole: "the claim roles is empty" },
  },
  "expired-token": { kind: "refused", reason: "CREDENTIALS_EXPIRED", message: "the token has expired" },
};
const verifier: Verifier = {
  verify(token) {
    if (token === "unlucky-token") {
      throw domainConnectError({
        code: Code.Unavailable,
        reason: "ISSUER_UNAVAILABLE",
        message: "try again",
        retryAfterMs: 1_000,
      });
    }
    return verdicts[token] ?? { kind: "foreign" };
  },
};
const { gate, interceptor, check } = authenticate({ verifiers: [verifier] });

const secrets = /(guessed|expired|operator|reader)-token|b3Bl/;

function bearer(token: string) {
  return { headers: { authorization: `Bearer ${token}` } };
}

function infoOf(error: ConnectError) {
  return error.findDetails(ErrorInfoSchema)[0];
}

async function failure(call: Promise<unknown>): Promise<ConnectError> {
  return await call.then(() => expect.unreachable("it did not fail"), ConnectError.from);
}

async function all<T>(messages: AsyncIterable<T>): Promise<T[]> {
  return await Array.fromAsync(messages);
}

/** A server that was not made with `serve()`. */
async function serveElsewhere(seen: Principal[]): Promise<string> {
  const server = createServer(
    connectNodeAdapter({
      interceptors: [interceptor],
      routes: (router) =>
        router.service(SampleService, {
          ...sampleImplementation,
          echo: ({ value }, { values }) => {
            seen.push(principalOf(values));
            return { value };
          },
        }),
    }),
  ).listen(0, "127.0.0.1");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`; // a TCP server has no other kind of address
}

describe.each(Object.entries(transports))("over %s", (_, createTransport) => {
  async function connect() {
    const principals: Principal[] = [];
    const server = await serveSample(
      { gates: [gate] },
      {
        echo: ({ value }, context) => {
          principals.push(callContext(context).principal);
          return { value };
        },
      },
    );
    return { server, principals, client: createClient(SampleService, createTransport(server.url)) };
  }

  test("a caller without credentials is told how to send some", async () => {
    const { client, server } = await connect();
    const error = await failure(client.echo({ value: "x" }));
    expect(error).toMatchObject({ code: Code.Unauthenticated });
    expect(error.rawMessage).toMatch(/TOOLPLANE_TOKEN.*--token/);
    expect(error.metadata.get("www-authenticate")).toBe('Bearer realm="toolplane"');
    expect(infoOf(error)).toMatchObject({ reason: "CREDENTIALS_MISSING", domain: "toolplane" });
    expect(server.logged).toContainEqual(
      expect.objectContaining({ msg: "call", code: "unauthenticated", principal: "anonymous" }),
    );
  });

  test("credentials that are not good are refused with the reason, and appear nowhere", async () => {
    const { client, server } = await connect();
    for (const [authorization, reason] of [
      ["Bearer guessed-token", "CREDENTIALS_INVALID"],
      ["Bearer expired-token", "CREDENTIALS_EXPIRED"],
      ["Basic b3BlcmF0b3I6dG9rZW4=", "CREDENTIALS_MALFORMED"],
      ["operator-token", "CREDENTIALS_MALFORMED"],
      ["Bearer operator-token, Bearer reader-token", "CREDENTIALS_MALFORMED"],
    ] as const) {
      const error = await failure(client.echo({ value: "x" }, { headers: { authorization } }));
      expect(error).toMatchObject({ code: Code.Unauthenticated });
      expect(infoOf(error)).toMatchObject({ reason });
      expect(error.metadata.get("www-authenticate")).toBe('Bearer realm="toolplane", error="invalid_token"');
      expect(JSON.stringify([error.message, infoOf(error), ...error.metadata])).not.toMatch(secrets);
    }
    expect(JSON.stringify(server.logged)).not.toMatch(secrets);
  });

  test("a role that is enough lets a call through, and the handler knows who calls", async () => {
    const { client, server, principals } = await connect();
    await client.echo({ value: "x" }, bearer("reader-token"));
    await client.echo({ value: "x" }, { headers: { authorization: "bearer operator-token" } });
    expect(principals).toEqual([
      { id: "user:rita", role: "reader" },
      { id: "key:ops", role: "operator" },
    ]);
    expect(server.logged.filter(({ msg }) => msg === "call")).toMatchObject([
      { principal: "user:rita" },
      { principal: "key:ops" },
    ]);
  });

  test("a role that is not enough is refused with the one that would be, for streams too", async () => {
    const { client } = await connect();
    for (const call of [
      () => client.measure({ value: new Uint8Array(3) }, bearer("reader-token")),
      () => all(client.count({ value: 3 }, bearer("reader-token"))),
    ]) {
      const error = await failure(call());
      expect(error).toMatchObject({ code: Code.PermissionDenied });
      expect(error.rawMessage).toContain("needs the role operator, and user:rita has the role reader");
      expect(infoOf(error)).toMatchObject({
        reason: "PERMISSION_DENIED",
        metadata: { required_role: "operator", role: "reader", principal: "user:rita" },
      });
    }
    expect(await all(client.count({ value: 2 }, bearer("operator-token")))).toHaveLength(2);
  });

  test("someone without a role is told why there is none", async () => {
    const { client } = await connect();
    const error = await failure(client.echo({ value: "x" }, bearer("roleless-token")));
    expect(error).toMatchObject({ code: Code.PermissionDenied });
    expect(error.rawMessage).toContain("user:nobody has no role: the claim roles is empty");
    expect(infoOf(error)).toMatchObject({ metadata: { role: "none" } });
  });

  test("what cannot be known now is no refusal", async () => {
    const { client } = await connect();
    const error = await failure(client.echo({ value: "x" }, bearer("unlucky-token")));
    expect(error).toMatchObject({ code: Code.Unavailable });
    expect(error.findDetails(RetryInfoSchema)).toHaveLength(1);
  });

  test("health stays open, whatever the credentials", async () => {
    const { server } = await connect();
    const health = createClient(Health, createTransport(server.url));
    await health.check({});
    await health.check({}, bearer("guessed-token"));
  });
});

describe.each(Object.entries(transports).filter(([name]) => name.includes("HTTP/1.1")))(
  "over %s",
  (_, createTransport) => {
    test("the interceptor does the same for servers that were made otherwise", async () => {
      const seen: Principal[] = [];
      const client = createClient(SampleService, createTransport(await serveElsewhere(seen)));
      expect(infoOf(await failure(client.echo({ value: "x" })))).toMatchObject({
        reason: "CREDENTIALS_MISSING",
      });
      expect(await failure(client.measure({}, bearer("reader-token")))).toMatchObject({
        code: Code.PermissionDenied,
      });
      await client.echo({ value: "x" }, bearer("reader-token"));
      expect(seen).toEqual([{ id: "user:rita", role: "reader" }]);
    });
  },
);

test("streams in both directions are refused before their first message", async () => {
  const server = await serveSample({ gates: [gate] });
  const client = createClient(
    SampleService,
    transports["gRPC over HTTP/2"]?.(server.url) ?? expect.unreachable(),
  );
  async function* endless() {
    yield { value: "x" };
    await new Promise(() => {});
  }
  expect(await failure(all(client.chat(endless())))).toMatchObject({ code: Code.Unauthenticated });
  expect(await failure(client.join(endless()))).toMatchObject({ code: Code.Unauthenticated });
});

test("a request is refused before its body is read", async () => {
  const server = await serveSample({ gates: [gate] });
  const request = httpRequest(`${server.url}/sample.v1.SampleService/Measure`, {
    method: "POST",
    headers: { "content-type": "application/proto", "content-length": "4000000" },
  });
  request.write("only the beginning");
  const [response] = await once(request, "response");
  expect(response.statusCode).toBe(401);
  expect(response.headers["www-authenticate"]).toBe('Bearer realm="toolplane"');
  request.destroy();
});

test("both versions of reflection stay open", async () => {
  const server = await serveSample({ gates: [gate] });
  const transport = transports["gRPC over HTTP/2"]?.(server.url) ?? expect.unreachable();
  async function* listServices() {
    yield { messageRequest: { case: "listServices", value: "" } } as const;
  }
  for (const service of [ServerReflection, ServerReflectionAlpha]) {
    const answers = await all(createClient(service, transport).serverReflectionInfo(listServices()));
    expect(answers).toMatchObject([{ messageResponse: { case: "listServicesResponse" } }]);
  }
});

test("methods that anyone may call ask for nothing, and what they are told is not believed", async () => {
  const open = (method: DescMethod) => (method.name === "Echo" ? "public" : roleOf(method));
  const seen: Principal[] = [];
  const server = await serveSample(
    { gates: [authenticate({ verifiers: [verifier], roleOf: open }).gate] },
    {
      echo: ({ value }, context) => {
        seen.push(callContext(context).principal);
        return { value };
      },
    },
  );
  const client = createClient(
    SampleService,
    transports["gRPC over HTTP/2"]?.(server.url) ?? expect.unreachable(),
  );
  await client.echo({ value: "x" }, bearer("guessed-token"));
  expect(seen).toEqual([{ id: "anonymous", role: "reader" }]);
});

test("plain HTTP handlers can ask too", async () => {
  await expect(check("Bearer reader-token", "reader", "/metrics")).resolves.toEqual({
    id: "user:rita",
    role: "reader",
  });
  await expect(check(undefined, "public", "/metrics")).resolves.toMatchObject({ id: "anonymous" });
  await expect(check(undefined, "reader", "/metrics")).rejects.toMatchObject({ code: Code.Unauthenticated });
  await expect(check("Bearer reader-token", "caller", "/metrics")).rejects.toThrow(
    /^\[permission_denied\] \/metrics/,
  );
});

test("the first verifier that takes a token decides, and the first refusal is told", async () => {
  const late: Verifier = {
    verify: (token) =>
      token === "expired-token"
        ? { kind: "accepted", identity: { id: "user:late", role: "caller" } }
        : { kind: "refused", reason: "CREDENTIALS_REVOKED", message: "the token was revoked" },
  };
  const both = authenticate({ verifiers: [verifier, late] });
  await expect(both.check("Bearer expired-token", "reader", "x")).resolves.toMatchObject({ id: "user:late" });
  await expect(both.check("Bearer other", "reader", "x")).rejects.toThrow("the token was revoked");
});

test("calls that need no credentials leave places to those that have some, and probes are always answered", async () => {
  const few = authenticate({ verifiers: [verifier], maxStrangers: 2 });
  const server = await serveSample({ gates: [few.gate] });
  const transport = transports["gRPC over HTTP/2"]?.(server.url) ?? expect.unreachable();
  const health = createClient(Health, transport);
  const watches = [0, 1].map(() => {
    const leave = new AbortController();
    const messages = health.watch({}, { signal: leave.signal })[Symbol.asyncIterator]();
    return { leave: () => leave.abort(), next: () => messages.next() };
  });
  for (const { next } of watches) {
    await next();
  }
  const error = await failure(health.list({}));
  expect(error).toMatchObject({ code: Code.ResourceExhausted });
  expect(infoOf(error)).toMatchObject({ reason: "TOO_MANY_STRANGERS" });
  expect(error.findDetails(RetryInfoSchema)).toHaveLength(1);
  await health.check({});
  await createClient(SampleService, transport).echo({ value: "x" }, bearer("reader-token"));
  watches[0]?.leave();
  await expect.poll(() => health.list({}).then(() => "answered", String)).toBe("answered");
});

test.each(Object.entries(transports))(
  "calls that need no credentials give their places back, over %s",
  async (_, createTransport) => {
    const { gate: one } = authenticate({ verifiers: [verifier], maxStrangers: 1 });
    const server = await serveSample({ gates: [one] });
    const health = createClient(Health, createTransport(server.url));
    for (let round = 0; round < 3; round++) {
      await expect.poll(() => health.list({}).then(() => "answered", String)).toBe("answered");
      await health.list({}, { timeoutMs: 0 }).catch(() => undefined);
      const leave = new AbortController();
      const left = health.list({}, { signal: leave.signal }).catch(() => undefined);
      leave.abort();
      await left;
    }
    await expect.poll(() => health.list({}).then(() => "answered", String)).toBe("answered");
  },
);

describe("a stream", () => {
  /** A stream of messages that goes on until someone ends it, and what its token is worth meanwhile. */
  async function open() {
    const clock = createFakeClock();
    let verdict: Verdict | Error = { kind: "accepted", identity: { id: "key:ops", role: "operator" } };
    const asked: string[] = [];
    const changing = authenticate({
      verifiers: [
        {
          verify(token) {
            asked.push(token);
            if (verdict instanceof Error) {
              throw verdict;
            }
            return verdict;
          },
        },
      ],
      clock,
    });
    let ended = false;
    const server = await serveSample(
      { gates: [changing.gate] },
      {
        async *count(_, { signal }) {
          yield { value: 1 };
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          ended = true;
        },
      },
    );
    const transport = transports["gRPC over HTTP/2"]?.(server.url) ?? expect.unreachable();
    const leave = new AbortController();
    const messages = createClient(SampleService, transport)
      .count({}, { ...bearer("some-token"), signal: leave.signal })
      [Symbol.asyncIterator]();
    await messages.next();
    return {
      clock,
      asked,
      next: () => messages.next(),
      leave: () => leave.abort(),
      ended: () => ended,
      set: (next: Verdict | Error) => {
        verdict = next;
      },
    };
  }

  test("ends within a minute when its key was revoked", async () => {
    const stream = await open();
    stream.set({ kind: "refused", reason: "CREDENTIALS_REVOKED", message: "the key was revoked" });
    stream.clock.advance(60_000);
    const error = await failure(stream.next());
    expect(error).toMatchObject({ code: Code.Unauthenticated });
    expect(infoOf(error)).toMatchObject({ reason: "CREDENTIALS_REVOKED" });
    await expect.poll(stream.ended).toBe(true);
    expect(stream.clock.pending).toBe(0);
  });

  test("goes on when its credentials have only come to their end, or cannot be looked at", async () => {
    const stream = await open();
    for (const verdict of [
      { kind: "refused", reason: "CREDENTIALS_EXPIRED", message: "the token has expired" },
      { kind: "foreign" },
      new Error("the database is away"),
    ] as const) {
      stream.set(verdict);
      const before = stream.asked.length;
      stream.clock.advance(60_000);
      await expect.poll(() => stream.asked.length).toBe(before + 1);
      await expect.poll(() => stream.clock.pending).toBe(1);
    }
    expect(stream.ended()).toBe(false);
    stream.leave();
    await expect.poll(() => stream.clock.pending).toBe(0);
  });
});

describe("a call from within the process", () => {
  function local(server: SampleServer, principal?: Principal): Transport {
    return grpcTransport({
      httpClient: server.localClient(principal),
      baseUrl: server.url,
      useBinaryFormat: true,
      interceptors: [],
      acceptCompression: [],
      sendCompression: null,
      compressMinBytes: 0,
      readMaxBytes: 1024 * 1024,
      writeMaxBytes: 1024 * 1024,
    });
  }

  test("may do what the principal may that it acts for, and no more", async () => {
    const server = await serveSample({ gates: [gate] });
    const client = createClient(SampleService, local(server, { id: "user:carl", role: "caller" }));
    await client.echo({ value: "x" });
    expect(server.logged.filter(({ msg }) => msg === "call")).toMatchObject([{ principal: "user:carl" }]);
    const error = await failure(client.measure({}));
    expect(error).toMatchObject({ code: Code.PermissionDenied });
    // What it sends along lends it nothing.
    expect(await failure(client.measure({}, bearer("operator-token")))).toMatchObject({
      code: Code.PermissionDenied,
    });
  });

  test("that acts for nobody needs credentials, but for what is open to everyone", async () => {
    const server = await serveSample({ gates: [gate] });
    const transport = local(server);
    const client = createClient(SampleService, transport);
    expect(infoOf(await failure(client.echo({ value: "x" })))).toMatchObject({
      reason: "CREDENTIALS_MISSING",
    });
    await createClient(Health, transport).check({});
  });

  test("acts for its principal also where nobody is asked", async () => {
    const server = await serveSample();
    await createClient(SampleService, local(server, { id: "user:carl", role: "caller" })).echo({
      value: "x",
    });
    expect(server.logged.filter(({ msg }) => msg === "call")).toMatchObject([{ principal: "user:carl" }]);
  });
});
