import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SecretSource } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { silentLogger } from "../storage/silent-logger.ts";
import { loadSigningKeys } from "./signing-key.ts";

async function createFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  return folder;
}

function load(dataDir: string, source?: SecretSource["source"], env: NodeJS.ProcessEnv = {}) {
  return loadSigningKeys({
    source: source && { $typeName: "toolplane.config.v1.SecretSource", source },
    dataDir,
    env,
    logger: silentLogger,
  });
}

test("a data directory has one key, whoever asks first, in a file for this user alone", async () => {
  const dataDir = join(await createFolder(), "data");
  const keys = await Promise.all(Array.from({ length: 10 }, () => load(dataDir)));
  expect(new Set(keys.map(([key]) => Buffer.from(key ?? []).toString("hex"))).size).toBe(1);
  expect(keys[0]?.[0]?.byteLength).toBe(32);
  expect(await load(dataDir)).toEqual(keys[0]);
  expect(await readdir(dataDir)).toEqual(["response-cache.key"]);
  expect((await stat(join(dataDir, "response-cache.key"))).mode & 0o777).toBe(0o600);
});

test("a file that others could read is closed to them, and a damaged one replaced", async () => {
  const dataDir = await createFolder();
  const path = join(dataDir, "response-cache.key");
  const before = await load(dataDir);
  await chmod(path, 0o644);
  expect(await load(dataDir)).toEqual(before);
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  await writeFile(path, (await readFile(path, "utf8")).slice(0, 20));
  const after = await load(dataDir);
  expect(after[0]?.byteLength).toBe(32);
  expect(after).not.toEqual(before);
});

test("a configured secret, or several of which the first signs, counts instead", async () => {
  const dataDir = await createFolder();
  const [next, old] = ["n".repeat(32), "o".repeat(40)];
  const path = join(dataDir, "secret");
  await writeFile(path, `${next}\n${old}\n`);
  const fromFile = await load(dataDir, { case: "file", value: path });
  expect(fromFile.map((key) => Buffer.from(key).toString())).toEqual([next, old]);
  const fromEnvironment = await load(dataDir, { case: "env", value: "KEY" }, { KEY: next });
  expect(fromEnvironment.map((key) => Buffer.from(key).toString())).toEqual([next]);
  expect(await readdir(dataDir)).toEqual(["secret"]);
});

test("a configured secret that is missing or short is refused", async () => {
  const dataDir = await createFolder();
  for (const env of [{}, { KEY: "short" }, { KEY: `${"x".repeat(32)}\nshort` }]) {
    await expect(load(dataDir, { case: "env", value: "KEY" }, env)).rejects.toThrow(
      "the environment variable KEY must hold a secret of at least 32 characters",
    );
  }
});
