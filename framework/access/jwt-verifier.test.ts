import { generateKeyPairSync } from "node:crypto";
import { Code } from "@connectrpc/connect";
import { SignJWT, UnsecuredJWT } from "jose";
import { expect, test } from "vitest";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { type Issuer, startIssuer } from "../test-support/issuer.ts";
import { type JwtVerifierOptions, jwtVerifier } from "./jwt-verifier.ts";
import { createKeySource, type KeySourceOptions } from "./key-source.ts";
import type { Verifier } from "./verifier.ts";

const issuerName = "https://id.example";
const audience = "toolplane";

interface Setup {
  readonly issuer: Issuer;
  readonly verifier: Verifier;
  readonly clock: ReturnType<typeof createFakeClock>;
  readonly logged: string[];
  /** A token of the issuer that is good for an hour, with claims of one's own. */
  token(claims?: Record<string, unknown>): Promise<string>;
}

async function setUp(
  options: Partial<JwtVerifierOptions> = {},
  source: Partial<KeySourceOptions> = {},
  alg?: string,
): Promise<Setup> {
  const issuer = await startIssuer(alg);
  const clock = createFakeClock();
  const logged: string[] = [];
  const log = (_: unknown, message: string) => void logged.push(message);
  const keys = createKeySource({
    url: issuer.jwksUrl,
    clock,
    logger: { info: log, warn: log } as KeySourceOptions["logger"], // nothing else of it is used
    ...source,
  });
  const verifier = jwtVerifier({ keys, issuer: issuerName, audience, clock, ...options });
  return {
    issuer,
    verifier,
    clock,
    logged,
    token: (claims = {}) =>
      issuer.sign({
        iss: issuerName,
        aud: audience,
        sub: "ada",
        roles: ["caller"],
        exp: Math.floor(clock.now() / 1_000) + 3_600,
        ...claims,
      }),
  };
}

test.each(["RS256", "PS512", "ES256", "ES384", "EdDSA"])("a token signed with %s is taken", async (alg) => {
  const { verifier, token, clock } = await setUp({}, {}, alg);
  expect(await verifier.verify(await token())).toEqual({
    kind: "accepted",
    identity: { id: "user:ada", role: "caller" },
    expiresAt: clock.now() + 3_630_000,
  });
});

test("the highest of the roles counts, wherever the claim is and however it is written", async () => {
  const roles = new Map([
    ["viewers", "reader"],
    ["Platform Admins", "operator"],
    ["builders", "caller"],
  ] as const);
  for (const [rolesClaim, claims, role] of [
    ["roles", { roles: ["viewers", "builders"] }, "caller"],
    ["roles", { roles: "viewers" }, "reader"],
    ["roles", { roles: "openid viewers builders" }, "caller"],
    ["roles", { roles: "Platform Admins" }, "operator"],
    ["realm_access.roles", { realm_access: { roles: ["Platform Admins"] } }, "operator"],
    ["https://acme.example/roles", { "https://acme.example/roles": ["viewers"] }, "reader"],
    ["roles", { roles: ["operator", "constructor", 7, null] }, undefined],
    ["roles", { roles: { viewers: true } }, undefined],
    ["roles", { roles: undefined }, undefined],
    ["constructor.name", {}, undefined],
  ] as const) {
    const { verifier, token } = await setUp({ rolesClaim, roles });
    const verdict = await verifier.verify(await token(claims));
    expect(verdict, JSON.stringify(claims)).toMatchObject({ kind: "accepted", identity: { role } });
  }
});

test("someone without a role is known, and told which claim would name one", async () => {
  const { verifier, token } = await setUp({ rolesClaim: "groups" });
  expect(await verifier.verify(await token())).toMatchObject({
    kind: "accepted",
    identity: { id: "user:ada", role: undefined, missingRole: expect.stringContaining("groups") },
  });
});

test("claims that are not as they must be are named, and tokens that are over are called so", async () => {
  const { verifier, token, clock } = await setUp();
  const now = Math.floor(clock.now() / 1_000);
  for (const [claims, reason, message] of [
    [{ iss: "https://other.example" }, "CREDENTIALS_INVALID", "claim iss"],
    [{ aud: "another-service" }, "CREDENTIALS_INVALID", "claim aud"],
    [{ aud: undefined }, "CREDENTIALS_INVALID", "claim aud is missing"],
    [{ exp: undefined }, "CREDENTIALS_INVALID", "claim exp is missing"],
    [{ exp: now - 31 }, "CREDENTIALS_EXPIRED", "expired"],
    [{ nbf: now + 31 }, "CREDENTIALS_INVALID", "not valid yet"],
    [{ sub: undefined }, "CREDENTIALS_INVALID", "claim sub"],
    [{ sub: "" }, "CREDENTIALS_INVALID", "claim sub"],
    [{ sub: "line\nbreak" }, "CREDENTIALS_INVALID", "claim sub"],
    [{ sub: "x".repeat(256) }, "CREDENTIALS_INVALID", "claim sub"],
  ] as const) {
    const verdict = await verifier.verify(await token(claims));
    expect(verdict).toMatchObject({ kind: "refused", reason, message: expect.stringContaining(message) });
  }
});

test("clocks may be off by 30 s", async () => {
  const { verifier, token, clock } = await setUp();
  const now = Math.floor(clock.now() / 1_000);
  expect(await verifier.verify(await token({ exp: now - 29, nbf: now + 29 }))).toMatchObject({
    kind: "accepted",
  });
});

test("nobody can make tokens with what is public", async () => {
  const { verifier, token, issuer } = await setUp();
  const genuine = await token();
  const claims = { iss: issuerName, aud: audience, sub: "eve", roles: "operator", exp: 4e9 };
  const published = await (await fetch(issuer.jwksUrl)).text();
  const shared = await new SignJWT(claims)
    .setProtectedHeader({ alg: "HS256", kid: "key-1" })
    .sign(new TextEncoder().encode(published));
  const [header = "", payload = "", signature = ""] = genuine.split(".");
  const other = Buffer.from(JSON.stringify({ ...claims, roles: ["operator"] })).toString("base64url");
  for (const forged of [
    shared,
    new UnsecuredJWT(claims).encode(),
    `${new UnsecuredJWT(claims).encode()}AAAA`,
    `${header}.${other}.${signature}`,
    `${header}.${payload}.${signature.slice(0, -4)}AAAA`,
    "aaaa.bbbb.cccc",
  ]) {
    expect((await verifier.verify(forged)).kind, forged).not.toBe("accepted");
  }
  expect(await verifier.verify("no-token-at-all")).toEqual({ kind: "foreign" });
});

test("tokens that do not say which key they were signed with are tried with each", async () => {
  const { verifier, token, issuer } = await setUp();
  await issuer.rotate({ kid: undefined });
  const first = await token();
  await issuer.rotate({ kid: undefined, keep: true });
  const second = await token();
  expect((await verifier.verify(first)).kind).toBe("accepted");
  expect((await verifier.verify(second)).kind).toBe("accepted");
  await issuer.rotate({ kid: undefined, keep: true });
  expect(await verifier.verify(await token())).toMatchObject({
    kind: "refused",
    reason: "CREDENTIALS_INVALID",
  });
});

test("published keys that nobody can use do not keep others from being used, and are no failure of ours", async () => {
  const { verifier, token, issuer } = await setUp({}, {}, "RS256");
  await issuer.rotate({ kid: undefined });
  const genuine = await token();
  const weak = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey.export({ format: "jwk" });
  const unusable = [
    { ...weak, kid: "weak" },
    { kty: "RSA", n: "!", e: "AQAB", kid: "garbage" },
    { kty: "RSA", kid: "empty" },
    { kty: "EC", crv: "P-256", x: "AAAA", y: "AAAA", kid: "off-curve" },
    {
      ...generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" }),
      kid: "private",
    },
  ];
  for (const key of unusable) {
    issuer.publish(key);
  }
  const [, payload = "", signature = ""] = genuine.split(".");
  for (const { kid, kty } of unusable) {
    const header = { alg: kty === "EC" ? "ES256" : "RS256", kid };
    const forged = [Buffer.from(JSON.stringify(header)).toString("base64url"), payload, signature].join(".");
    expect(await verifier.verify(forged), kid).toMatchObject({
      kind: "refused",
      reason: "CREDENTIALS_INVALID",
    });
  }
  expect((await verifier.verify(genuine)).kind).toBe("accepted");
});

test("a source of keys that fails is no refusal", async () => {
  const { token, clock } = await setUp();
  const verifier = jwtVerifier({
    keys: () => Promise.reject(new TypeError("fetch failed")),
    issuer: issuerName,
    audience,
    clock,
  });
  await expect(verifier.verify(await token())).rejects.toThrow("fetch failed");
});

test.each([
  ["a lone surrogate", "ada\ud800"],
  ["a change of direction", "ada\u202enimda"],
  ["a separator of lines", "ada\u2028admin"],
  ["a separator of paragraphs", "ada\u2029admin"],
  ["spaces around it", " ada"],
  ["a space that does not break", "ada\u00a0"],
  ["nothing but spaces", "  "],
])("a name with %s, which may look like another one, is nobody's", async (_, sub) => {
  const { verifier, token } = await setUp();
  expect(await verifier.verify(await token({ sub }))).toMatchObject({
    kind: "refused",
    message: expect.stringContaining("claim sub"),
  });
});

test("names may be in any script, and can never be those of keys", async () => {
  const { verifier, token } = await setUp();
  for (const sub of ["Ада Лавлейс", "山田 太郎", "auth0|5f7c", "key:operator", "operator", "anonymous"]) {
    expect(await verifier.verify(await token({ sub }))).toMatchObject({ identity: { id: `user:${sub}` } });
  }
});

test("a key that is new is fetched, once in 30 s for all that is not known", async () => {
  const { verifier, token, issuer, clock } = await setUp();
  expect((await verifier.verify(await token())).kind).toBe("accepted");
  await issuer.rotate({ keep: true });
  const rotated = await token();
  for (let attempt = 0; attempt < 20; attempt++) {
    expect(await verifier.verify(rotated)).toMatchObject({ kind: "refused", reason: "CREDENTIALS_INVALID" });
  }
  expect(issuer.requests).toBe(1);
  clock.advance(30_000);
  const verdicts = await Promise.all(Array.from({ length: 20 }, () => verifier.verify(rotated)));
  expect(verdicts.map(({ kind }) => kind)).toEqual(verdicts.map(() => "accepted"));
  expect(issuer.requests).toBe(2);
});

test("a key that was taken back is forgotten when the keys are fetched again", async () => {
  const { verifier, token, issuer, clock } = await setUp();
  const old = await token({ exp: 4e9 });
  expect((await verifier.verify(old)).kind).toBe("accepted");
  await issuer.rotate();
  clock.advance(600_000);
  await expect.poll(async () => (await verifier.verify(old)).kind).toBe("refused");
});

test("while the issuer is away, known keys go on, and others are answered with UNAVAILABLE", async () => {
  const { verifier, token, issuer, clock, logged } = await setUp();
  const known = await token({ exp: 4e9 });
  expect((await verifier.verify(known)).kind).toBe("accepted");
  await issuer.rotate({ keep: true });
  const unknown = await token({ exp: 4e9 });
  await issuer.die();
  clock.advance(86_400_000);
  expect((await verifier.verify(known)).kind).toBe("accepted");
  await expect(verifier.verify(unknown)).rejects.toMatchObject({ code: Code.Unavailable });
  expect((await verifier.verify(known)).kind).toBe("accepted");

  await issuer.revive();
  await expect(verifier.verify(unknown)).rejects.toMatchObject({ code: Code.Unavailable });
  clock.advance(5_000);
  expect((await verifier.verify(unknown)).kind).toBe("accepted");
  expect(logged).toEqual([
    expect.stringContaining("cannot be fetched"),
    expect.stringContaining("can be fetched again"),
  ]);
});

test("an issuer that fails is asked once in 5 s, whatever is asked of us", async () => {
  const { verifier, token, issuer, clock } = await setUp();
  issuer.behave("fail");
  const good = await token();
  for (let attempt = 0; attempt < 10; attempt++) {
    await expect(verifier.verify(good)).rejects.toMatchObject({ code: Code.Unavailable });
  }
  expect(issuer.requests).toBe(1);
  issuer.behave("answer");
  clock.advance(5_000);
  expect((await verifier.verify(good)).kind).toBe("accepted");
});

test("an issuer that hangs holds nobody up whose key is known, and others no longer than the time limit", async () => {
  const { verifier, token, issuer, clock } = await setUp({}, { timeoutMs: 200 });
  const known = await token({ exp: 4e9 });
  expect((await verifier.verify(known)).kind).toBe("accepted");
  issuer.behave("hang");
  clock.advance(600_000);
  expect((await verifier.verify(known)).kind).toBe("accepted");
  await issuer.rotate({ keep: true });
  const unknown = await token({ exp: 4e9 });
  await expect(verifier.verify(unknown)).rejects.toMatchObject({ code: Code.Unavailable });
});
