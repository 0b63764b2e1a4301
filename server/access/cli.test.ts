import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type BundledCli, bundleCli } from "../../client/testing/bundled-cli.ts";
import { createTestDatabaseUrl } from "../storage/testing.ts";
import { operatorKey, type Replica, startReplica } from "./test-support/replica.ts";

let cli: BundledCli;
let replica: Replica;

beforeAll(async () => {
  cli = await bundleCli();
});

afterAll(() => cli[Symbol.asyncDispose]());

beforeEach(async () => {
  replica = await startReplica(await createTestDatabaseUrl());
});

function run(token: string | undefined, ...args: string[]) {
  return cli.run(args, {
    url: replica.server.url,
    env: { TZ: "UTC", ...(token !== undefined && { TOOLPLANE_TOKEN: token }) },
  });
}

test("a key is made, and nothing but the key goes to stdout", async () => {
  const { code, stdout, stderr } = await run(
    operatorKey,
    "keys",
    "create",
    "ci",
    "--role",
    "caller",
    "--expires",
    "90d",
  );
  expect(code).toBe(0);
  expect(stdout).toMatch(/^tp_k[0-9a-z]{10}_[0-9A-Za-z]{49}\n$/);
  expect(stderr).toMatch(
    /✓ Created k[0-9a-z]{10} for ci as caller until \d{4}-\d\d-\d\d \d\d:\d\d\n {2}It is shown only now/,
  );
  expect((await run(stdout.trim(), "services")).code).toBe(0);
});

test("keys are listed, replaced and revoked", async () => {
  const secret = (await run(operatorKey, "keys", "create", "ci", "--role", "reader")).stdout.trim();
  const [, id = ""] = secret.split("_");
  const listed = await run(operatorKey, "keys");
  expect(listed.stdout).toMatch(/^NAME +ROLE +ID +STATE +EXPIRES +LAST USE +CREATED +BY\n/);
  expect(listed.stdout).toMatch(new RegExp(`ci +reader +${id} +● active +never +never .*key:operator`));
  expect(listed.stdout).not.toContain(secret);

  const rotated = await run(operatorKey, "keys", "rotate", id, "--overlap", "0");
  expect(rotated).toMatchObject({ code: 0, stdout: expect.stringMatching(/^tp_/) });
  expect(rotated.stderr).toContain(`${id} is taken until`);
  expect(await run(secret, "services")).toMatchObject({
    code: 6,
    stderr: expect.stringContaining("has expired"),
  });

  const [, next = ""] = rotated.stdout.split("_");
  const revoked = await run(operatorKey, "key", "revoke", next);
  expect(revoked).toMatchObject({ code: 0, stdout: `✓ Revoked ${next} of ci\n` });
  expect((await run(operatorKey, "keys", "list")).stderr).toContain("There are no keys. Make one:");
  const all = await run(operatorKey, "keys", "list", "ci", "--all", "--json");
  expect(JSON.parse(all.stdout)).toMatchObject({
    apiKeys: [
      { id: next, state: "API_KEY_STATE_REVOKED", role: "ROLE_READER" },
      { id, state: "API_KEY_STATE_EXPIRED" },
    ],
  });
});

test("a list is as long as was asked for, and says when there is more", async () => {
  for (const name of ["a", "b", "c"]) {
    await run(operatorKey, "keys", "create", name, "--role", "reader");
  }
  const some = await run(operatorKey, "keys", "list", "--limit", "2");
  expect(some.stdout.trim().split("\n")).toHaveLength(3);
  expect(some.stderr).toContain("--limit 0 lists all");
  const all = await run(operatorKey, "keys", "list", "--limit", "0");
  expect(all.stdout.trim().split("\n")).toHaveLength(4);
  expect(all.stderr).toBe("");
});

test("exit codes tell what is wrong: 6 for who asks, 3 for what is not there, 2 for the command line", async () => {
  const reader = (await run(operatorKey, "keys", "create", "r", "--role", "reader")).stdout.trim();
  expect(await run(undefined, "keys")).toMatchObject({
    code: 6,
    stderr: expect.stringContaining("TOOLPLANE_TOKEN or --token"),
  });
  expect(await run(reader, "keys")).toMatchObject({
    code: 6,
    stderr: expect.stringContaining("needs the role operator, and key:r has the role reader"),
  });
  expect(await run(operatorKey, "keys", "revoke", "k0000000000")).toMatchObject({
    code: 3,
    stderr: expect.stringContaining("toolplane keys list --all"),
  });
  expect(await run(operatorKey, "keys", "create", "not a name", "--role", "reader")).toMatchObject({
    code: 5,
  });
  for (const args of [
    ["create", "x"],
    ["create", "x", "--role", "king"],
    ["create", "x", "--role", "reader", "--expires", "soon"],
    ["rotate"],
    ["rotate", "x", "--overlap", "later"],
  ]) {
    expect(await run(operatorKey, "keys", ...args), args.join(" ")).toMatchObject({ code: 2, stdout: "" });
  }
});

test("verbs, roles and the ids of keys are completed", async () => {
  const secret = (await run(operatorKey, "keys", "create", "ci", "--role", "reader")).stdout.trim();
  const [, id = ""] = secret.split("_");
  const complete = async (...words: string[]) =>
    (await run(operatorKey, "__complete", "--", ...words)).stdout;
  expect(await complete("keys", "r")).toMatch(/^rotate\t.*\nrevoke\t.*\n$/);
  expect(await complete("keys", "create", "x", "--role", "")).toBe("reader\ncaller\noperator\n");
  expect(await complete("keys", "revoke", "k")).toBe(`${id}\tci\n`);
});
