import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { loadSettings } from "./load.ts";
import type { Settings } from "./settings.ts";

async function load(yaml: string, env: NodeJS.ProcessEnv = {}): Promise<Settings["auth"]> {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-auth-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const config = join(folder, "config.yaml");
  await writeFile(config, yaml);
  return loadSettings({ config }, env).auth;
}

test("nobody is asked for credentials by default", () => {
  expect(loadSettings({}, {}).auth).toEqual({ required: false, operatorKey: undefined, jwt: undefined });
});

test("the operator key of the environment wins over the one of the file, and is not read yet", async () => {
  const key = "not-to-be-copied-anywhere-0123456789";
  for (const yaml of [
    "auth: { required: true }",
    "auth: { required: true, operator_key: { file: /run/key } }",
    "auth: { required: true, operatorKey: { file: /run/key } }",
  ]) {
    const auth = await load(yaml, { TOOLPLANE_OPERATOR_KEY: key });
    expect(auth).toMatchObject({
      required: true,
      operatorKey: { source: { case: "env", value: "TOOLPLANE_OPERATOR_KEY" } },
    });
    expect(JSON.stringify(auth)).not.toContain(key);
  }
  expect(await load("auth: { operator_key: { file: /run/key } }")).toMatchObject({
    operatorKey: { source: { case: "file", value: "/run/key" } },
  });
  expect(loadSettings({}, { TOOLPLANE_OPERATOR_KEY: key }).auth.operatorKey).toBeDefined();
});

test("tokens need an issuer; roles stand for themselves unless they are mapped", async () => {
  const jwt = "issuer: https://id.example, audience: toolplane, jwks_url: https://id.example/keys";
  const plain = await load(`auth: { jwt: { ${jwt} } }`);
  expect(plain.jwt).toMatchObject({ rolesClaim: "roles", subjectClaim: "sub" });
  expect([...(plain.jwt?.roles ?? [])]).toEqual([
    ["reader", "reader"],
    ["caller", "caller"],
    ["operator", "operator"],
  ]);
  const mapped = await load(`auth: { jwt: { ${jwt}, roles: { "Platform Admins": operator } } }`);
  expect([...(mapped.jwt?.roles ?? [])]).toEqual([["Platform Admins", "operator"]]);
  await expect(load("auth: { jwt: { audience: toolplane } }")).rejects.toMatchObject({
    init: { fields: expect.arrayContaining([expect.objectContaining({ field: "auth.jwt.issuer" })]) },
  });
  await expect(load("auth: yes-please", { TOOLPLANE_OPERATOR_KEY: "x" })).rejects.toMatchObject({
    init: { fields: [expect.objectContaining({ field: "auth" })] },
  });
});
