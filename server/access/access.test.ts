import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { durationFromMs, timestampDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { ApiKeyState } from "@toolplane/gen/toolplane/admin/v1/api_key_pb.js";
import { Role } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import pg from "pg";
import { describe, expect, onTestFinished, test } from "vitest";
import { createFakeClock, type FakeClock } from "../../framework/test-support/fake-clock.ts";
import { startIssuer } from "../../framework/test-support/issuer.ts";
import { transports } from "../../framework/test-support/transports.ts";
import { createTestDatabaseUrl } from "../storage/testing.ts";
import { operatorKey, type Replica, startReplica } from "./test-support/replica.ts";

async function reasonOf(call: Promise<unknown>): Promise<string> {
  const error = await call.then(() => undefined, ConnectError.from);
  return error === undefined ? "ok" : (error.findDetails(ErrorInfoSchema)[0]?.reason ?? error.message);
}

async function createKey(replica: Replica, name = "ci", role = Role.CALLER, ttlMs?: number) {
  const { secret, apiKey } = await replica.admin(operatorKey).createApiKey({
    name,
    role,
    ...(ttlMs !== undefined && { ttl: durationFromMs(ttlMs) }),
  });
  return { secret, id: apiKey?.id ?? "", apiKey };
}

/** Runs statements beside the replicas, as the database's administrator. */
async function administer(url: string, database: string, ...statements: string[]): Promise<void> {
  const other = new URL(url);
  other.pathname = `/${database}`;
  const host = other.searchParams.get("host") ?? "";
  const client = new pg.Client({
    host,
    port: Number(other.searchParams.get("port")),
    user: other.searchParams.get("user") ?? "",
    database,
  });
  await client.connect();
  try {
    for (const statement of statements) {
      await client.query(statement);
    }
  } finally {
    await client.end();
  }
}

const databaseOf = (url: string) => new URL(url).pathname.slice(1);

describe.each(Object.entries(transports))("over %s", (_, transport) => {
  test("a key is made, used, replaced and revoked", async () => {
    const replica = await startReplica(await createTestDatabaseUrl());
    const operator = replica.admin(operatorKey, transport);
    const made = await operator.createApiKey({ name: "ci", role: Role.CALLER });
    expect(made.secret).toMatch(/^tp_k[0-9a-z]{10}_[0-9A-Za-z]{49}$/);
    expect(made.apiKey).toMatchObject({
      name: "ci",
      role: Role.CALLER,
      state: ApiKeyState.ACTIVE,
      createdBy: "key:operator",
    });
    expect(made.apiKey?.expireTime).toBeUndefined();
    const list = (token: string) => reasonOf(replica.registry(token, transport).listServices({}));
    expect(await list(made.secret)).toBe("ok");
    expect(await reasonOf(replica.admin(made.secret, transport).listApiKeys({}))).toBe("PERMISSION_DENIED");

    const rotated = await operator.rotateApiKey({ id: made.apiKey?.id ?? "" });
    expect(rotated.apiKey).toMatchObject({ name: "ci", role: Role.CALLER, state: ApiKeyState.ACTIVE });
    expect([await list(made.secret), await list(rotated.secret)]).toEqual(["ok", "ok"]);

    const revoked = await operator.revokeApiKey({ id: made.apiKey?.id ?? "" });
    expect(revoked.apiKey).toMatchObject({ state: ApiKeyState.REVOKED });
    expect([await list(made.secret), await list(rotated.secret)]).toEqual(["CREDENTIALS_REVOKED", "ok"]);
    expect(await operator.listApiKeys({})).toMatchObject({ apiKeys: [{ id: rotated.apiKey?.id }] });
    expect((await operator.listApiKeys({ includeInactive: true })).apiKeys).toHaveLength(2);
  });
});

describe("a key", () => {
  test("is taken until it expires, also when it was replaced, and then nobody may use it", async () => {
    const clock = createFakeClock();
    const replica = await startReplica(await createTestDatabaseUrl(), { clock });
    const operator = replica.admin(operatorKey);
    const { secret, id, apiKey } = await createKey(replica, "ci", Role.READER, 3 * 3_600_000);
    expect(apiKey?.expireTime && timestampDate(apiKey.expireTime).getTime()).toBe(
      clock.now() + 3 * 3_600_000,
    );
    const rotated = await operator.rotateApiKey({ id, overlap: durationFromMs(3_600_000) });
    expect(rotated.previousExpireTime && timestampDate(rotated.previousExpireTime).getTime()).toBe(
      clock.now() + 3_600_000,
    );
    const use = (token: string) => reasonOf(replica.registry(token).listServices({}));
    clock.advance(3_599_999);
    expect([await use(secret), await use(rotated.secret)]).toEqual(["ok", "ok"]);
    clock.advance(1);
    expect([await use(secret), await use(rotated.secret)]).toEqual(["CREDENTIALS_EXPIRED", "ok"]);
    expect(await reasonOf(operator.rotateApiKey({ id }))).toBe("API_KEY_NOT_ACTIVE");
    expect(await operator.listApiKeys({ includeInactive: true, name: "ci" })).toMatchObject({
      apiKeys: expect.arrayContaining([expect.objectContaining({ id, state: ApiKeyState.EXPIRED })]),
    });
  });

  test("that is replaced is never taken for longer than before, and not at all without an overlap", async () => {
    const clock = createFakeClock();
    const replica = await startReplica(await createTestDatabaseUrl(), { clock });
    const operator = replica.admin(operatorKey);
    const short = await createKey(replica, "short", Role.READER, 3_600_000);
    const { previousExpireTime } = await operator.rotateApiKey({ id: short.id });
    expect(previousExpireTime && timestampDate(previousExpireTime).getTime()).toBe(clock.now() + 3_600_000);
    const leaked = await createKey(replica, "leaked");
    await operator.rotateApiKey({ id: leaked.id, overlap: durationFromMs(0) });
    expect(await reasonOf(replica.registry(leaked.secret).listServices({}))).toBe("CREDENTIALS_EXPIRED");
  });

  test("that does not exist cannot be replaced or revoked; revoking twice does no harm", async () => {
    const replica = await startReplica(await createTestDatabaseUrl());
    const operator = replica.admin(operatorKey);
    expect(await reasonOf(operator.rotateApiKey({ id: "k0000000000" }))).toBe("API_KEY_NOT_FOUND");
    expect(await reasonOf(operator.revokeApiKey({ id: "k0000000000" }))).toBe("API_KEY_NOT_FOUND");
    const { id } = await createKey(replica);
    const [first, second] = [await operator.revokeApiKey({ id }), await operator.revokeApiKey({ id })];
    expect(second).toEqual(first);
  });

  test("cannot be named by what no database can look for, nor listed from there on", async () => {
    const replica = await startReplica(await createTestDatabaseUrl());
    const operator = replica.admin(operatorKey);
    expect(await reasonOf(operator.rotateApiKey({ id: "k\0" }))).toBe("API_KEY_NOT_FOUND");
    expect(await reasonOf(operator.revokeApiKey({ id: "k\0" }))).toBe("API_KEY_NOT_FOUND");
    expect(await operator.listApiKeys({ name: "k\0" })).toMatchObject({ apiKeys: [] });
    for (const name of ["a", "b"]) {
      await createKey(replica, name);
    }
    const { nextPageToken } = await operator.listApiKeys({ pageSize: 1 });
    const [question] = JSON.parse(Buffer.from(nextPageToken, "base64url").toString());
    for (const position of [
      ["a\0", "2026-01-01T00:00:00Z", "k"],
      ["a", "2026-01-01T00:00:00Z", "k\0"],
      ["a\ud800", "2026-01-01T00:00:00Z", "k"],
      ["a", "-271821-04-20T00:00:00Z", "k"],
      ["a", "some day", "k"],
    ]) {
      const pageToken = Buffer.from(JSON.stringify([question, ...position])).toString("base64url");
      expect(await reasonOf(operator.listApiKeys({ pageSize: 1, pageToken })), position.join()).toBe(
        "INVALID_FIELDS",
      );
    }
  });

  test.each(["operator", "Operator", "OPERATOR"])(
    "cannot be called %s, as the one that is configured",
    async (name) => {
      const replica = await startReplica(await createTestDatabaseUrl());
      expect(await reasonOf(createKey(replica, name))).toBe("INVALID_FIELDS");
    },
  );

  test("says when it was last used, to the minute", async () => {
    const clock = createFakeClock(Date.UTC(2026, 0, 1, 10, 0, 20));
    const replica = await startReplica(await createTestDatabaseUrl(), { clock });
    const { secret, id } = await createKey(replica);
    const lastUse = async () => {
      const { apiKeys } = await replica.admin(operatorKey).listApiKeys({});
      const time = apiKeys.find((key) => key.id === id)?.lastUseTime;
      return time && timestampDate(time).toISOString();
    };
    expect(await lastUse()).toBeUndefined();
    await replica.registry(secret).listServices({});
    clock.advance(5_000);
    await expect.poll(lastUse).toBe("2026-01-01T10:00:00.000Z");
  });

  test("is listed page by page, by name, the newest first", async () => {
    const clock = createFakeClock();
    const replica = await startReplica(await createTestDatabaseUrl(), { clock });
    const operator = replica.admin(operatorKey);
    const ids: string[] = [];
    for (const name of ["b", "a", "b", "a", "c"]) {
      ids.push((await createKey(replica, name)).id);
      clock.advance(1);
    }
    const pages: string[][] = [];
    let pageToken = "";
    do {
      const page = await operator.listApiKeys({ pageSize: 2, pageToken });
      pages.push(page.apiKeys.map(({ id }) => id));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(pages).toEqual([[ids[3], ids[1]], [ids[2], ids[0]], [ids[4]]]);
    const { nextPageToken } = await operator.listApiKeys({ pageSize: 2 });
    expect(await reasonOf(operator.listApiKeys({ name: "a", pageToken: nextPageToken }))).toBe(
      "INVALID_FIELDS",
    );
  });

  test("cannot be guessed: wrong secrets, typos and other ids are refused", async () => {
    const replica = await startReplica(await createTestDatabaseUrl());
    const { secret } = await createKey(replica);
    const other = await startReplica(await createTestDatabaseUrl());
    const foreign = await createKey(other);
    const use = (token: string) => reasonOf(replica.registry(token).listServices({}));
    expect(await use(foreign.secret)).toBe("CREDENTIALS_INVALID");
    expect(await use(secret.slice(0, -1))).toBe("CREDENTIALS_MALFORMED");
    expect(await use(`${secret}0`)).toBe("CREDENTIALS_MALFORMED");
    expect(await use("operator-key-for-tests-0123456789abcdeF")).toBe("CREDENTIALS_INVALID");
  });
});

describe("two replicas", () => {
  /** The second one never looks by itself: its clock stands still. What it learns, it is told. */
  async function startTwo(): Promise<{ one: Replica; two: Replica; clock: FakeClock; url: string }> {
    const url = await createTestDatabaseUrl();
    const clock = createFakeClock(Date.now());
    return { url, clock, one: await startReplica(url), two: await startReplica(url, { clock }) };
  }

  const use = (replica: Replica, token: string) => reasonOf(replica.registry(token).listServices({}));

  test("know of new and of revoked keys by what the database tells them", async () => {
    const { one, two } = await startTwo();
    const { secret, id } = await createKey(one);
    await expect.poll(() => use(two, secret)).toBe("ok");
    await one.admin(operatorKey).revokeApiKey({ id });
    await expect.poll(() => use(two, secret)).toBe("CREDENTIALS_REVOKED");
  });

  test("take a key that was made just now, before anyone has told them", async () => {
    const { one, two, clock } = await startTwo();
    for (let round = 0; round < 20; round++) {
      const { secret } = await createKey(one);
      clock.advance(1_000);
      expect(await use(two, secret)).toBe("ok");
    }
  });

  test("look again when the connection was lost over which they are told", async () => {
    const { one, two, url } = await startTwo();
    const { secret, id } = await createKey(one);
    await expect.poll(() => use(two, secret)).toBe("ok");
    await administer(
      url,
      databaseOf(url),
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'toolplane listener'",
    );
    await one.admin(operatorKey).revokeApiKey({ id });
    await expect.poll(() => use(two, secret)).toBe("CREDENTIALS_REVOKED");
  });

  test("go on with what they know while the database is away, and call nothing wrong that they do not know", async () => {
    const { one, two, url, clock } = await startTwo();
    const known = await createKey(one);
    await expect.poll(() => use(two, known.secret)).toBe("ok");
    const elsewhere = await startReplica(await createTestDatabaseUrl());
    const unknown = await createKey(elsewhere);
    const database = databaseOf(url);
    await administer(
      url,
      "postgres",
      `ALTER DATABASE ${database} WITH ALLOW_CONNECTIONS false`,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${database}'`,
    );
    clock.advance(1_000);
    await expect.poll(() => use(two, unknown.secret)).not.toBe("CREDENTIALS_INVALID");
    const error = await two.registry(unknown.secret).listServices({}).catch(ConnectError.from);
    expect(error).toMatchObject({ code: Code.Unavailable });
    expect(await use(two, known.secret)).toBe("ok");
    await administer(url, "postgres", `ALTER DATABASE ${database} WITH ALLOW_CONNECTIONS true`);
    clock.advance(1_000);
    await expect.poll(() => use(two, unknown.secret)).toBe("CREDENTIALS_INVALID");
  });
});

describe("the operator key", () => {
  test("is read with every use, so that its file may be replaced", async () => {
    const folder = await mkdtemp(join(tmpdir(), "toolplane-key-"));
    onTestFinished(() => rm(folder, { recursive: true }));
    const file = join(folder, "key");
    const [first, second] = ["first-".repeat(6), "second-".repeat(6)];
    await writeFile(file, `${first}\n`);
    const replica = await startReplica(await createTestDatabaseUrl(), {
      env: {},
      auth: {
        operatorKey: {
          $typeName: "toolplane.config.v1.SecretSource",
          source: { case: "file", value: file },
        },
      },
    });
    const list = (token: string) => reasonOf(replica.admin(token).listApiKeys({}));
    expect([await list(first), await list(second)]).toEqual(["ok", "CREDENTIALS_INVALID"]);
    await writeFile(file, second);
    expect([await list(first), await list(second)]).toEqual(["CREDENTIALS_INVALID", "ok"]);
    await rm(file);
    expect([await list(first), await list(second)]).toEqual(["CREDENTIALS_INVALID", "CREDENTIALS_INVALID"]);
    await writeFile(file, "");
    expect(await list("")).toBe("CREDENTIALS_MALFORMED");
    expect(replica.logged.join("")).toContain("the operator key cannot be used");
  });

  test("shares its name with no other key", async () => {
    const replica = await startReplica(await createTestDatabaseUrl());
    const name = "operator";
    expect(await reasonOf(replica.admin(operatorKey).createApiKey({ name, role: Role.READER }))).toBe(
      "INVALID_FIELDS",
    );
  });

  test("that can be guessed keeps the server from starting, and says how to make a better one", async () => {
    const url = await createTestDatabaseUrl();
    for (const key of ["short", "with spaces in it, though it is long enough"]) {
      const starting = startReplica(url, { env: { TOOLPLANE_OPERATOR_KEY: key } });
      await expect(starting).rejects.toMatchObject({
        init: { reason: "INVALID_FIELDS", fields: [{ field: "auth.operator_key" }] },
      });
      await expect(starting).rejects.not.toThrow(key);
    }
  });

  test("is needed for the first key, and not after that", async () => {
    const url = await createTestDatabaseUrl();
    await expect(startReplica(url, { env: {} })).rejects.toMatchObject({
      init: { reason: "NO_CREDENTIALS_POSSIBLE", preconditions: [{ subject: "TOOLPLANE_OPERATOR_KEY" }] },
    });
    const { secret } = await createKey(await startReplica(url), "ada", Role.OPERATOR);
    const replica = await startReplica(url, { env: {} });
    expect(await reasonOf(replica.admin(secret).listApiKeys({}))).toBe("ok");
  });
});

test("JSON Web Tokens are taken beside keys, and what the issuer does is not held against keys", async () => {
  const issuer = await startIssuer();
  const replica = await startReplica(await createTestDatabaseUrl(), {
    auth: {
      jwt: {
        issuer: "https://id.example",
        audience: "toolplane",
        jwksUrl: issuer.jwksUrl,
        rolesClaim: "realm_access.roles",
        roles: new Map([["tool-users", "caller"]]),
        subjectClaim: "email",
      },
    },
  });
  const sign = (roles: string[]) =>
    issuer.sign({
      iss: "https://id.example",
      aud: "toolplane",
      email: "ada@acme.example",
      realm_access: { roles },
      exp: Math.floor(Date.now() / 1_000) + 600,
    });
  const token = await sign(["tool-users"]);
  expect(await reasonOf(replica.registry(token).listServices({}))).toBe("ok");
  expect(await reasonOf(replica.registry(token).registerService(registration))).toBe("PERMISSION_DENIED");
  expect(await reasonOf(replica.registry(await sign(["guests"])).listServices({}))).toBe("PERMISSION_DENIED");
  expect(replica.logged.join("")).toContain('"principal":"user:ada@acme.example"');
  issuer.behave("hang");
  expect(await reasonOf(replica.registry(token).listServices({}))).toBe("ok");
  expect(await reasonOf(replica.registry(operatorKey).listServices({}))).toBe("ok");
});

test.each([
  ["http://id.example/keys", 1],
  ["https://id.example/keys", 0],
  ["http://127.0.0.1:1/keys", 0],
])("an issuer's keys at %s: warnings %i", async (jwksUrl, warnings) => {
  const replica = await startReplica(await createTestDatabaseUrl(), {
    auth: {
      jwt: {
        issuer: "https://id.example",
        audience: "toolplane",
        jwksUrl,
        rolesClaim: "roles",
        roles: new Map(),
        subjectClaim: "sub",
      },
    },
  });
  expect(replica.logged.filter((line) => line.includes("come without encryption"))).toHaveLength(warnings);
});

test("the log says who has ended a key", async () => {
  const replica = await startReplica(await createTestDatabaseUrl());
  const { id } = await createKey(replica);
  await replica.admin(operatorKey).revokeApiKey({ id });
  expect(replica.logged.filter((line) => line.includes("API key revoked"))).toEqual([
    expect.stringContaining('"by":"key:operator"'),
  ]);
});

test("no token is ever logged or repeated", async () => {
  const replica = await startReplica(await createTestDatabaseUrl());
  const { secret, id } = await createKey(replica);
  const tokens = [secret, operatorKey, `${secret}x`, "Guess-Guess-Guess"];
  const errors: unknown[] = [];
  for (const token of tokens) {
    await replica
      .registry(token)
      .listServices({})
      .catch((error: unknown) => errors.push(error));
    await replica
      .registry(token)
      .registerService(registration)
      .catch((error: unknown) => errors.push(error));
  }
  await replica.admin(operatorKey).revokeApiKey({ id });
  await replica
    .registry(secret)
    .listServices({})
    .catch((error: unknown) => errors.push(error));
  expect(errors.length).toBeGreaterThan(4);
  const told = replica.logged.join("") + errors.map((error) => ConnectError.from(error).message).join("");
  expect(told).toContain(id);
  for (const token of [...tokens, secret.slice(-49, -6)]) {
    expect(told).not.toContain(token);
  }
});

const registration = {
  service: { name: "weather" },
  instance: { endpoint: "127.0.0.1:50051" },
};
