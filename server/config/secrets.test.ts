import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { SecretSchema } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { createSecretResolver } from "./secrets.ts";

const fromEnv = create(SecretSchema, {
  name: "weather",
  source: { case: "env", value: "WEATHER_KEY" },
  hosts: ["api.example.com", "127.0.0.1:9000"],
});

test("a secret is read from the environment for the hosts that it may go to", () => {
  const secrets = createSecretResolver([fromEnv], { WEATHER_KEY: "s3cret" });
  expect(secrets.resolve("weather", "https://api.example.com/v1")).toBe("s3cret");
  expect(secrets.resolve("weather", "http://127.0.0.1:9000")).toBe("s3cret");
});

test("a secret is not sent anywhere else", () => {
  const secrets = createSecretResolver([fromEnv], { WEATHER_KEY: "s3cret" });
  expect(() => secrets.resolve("weather", "https://evil.example.com")).toThrow(
    /may not be sent to evil.example.com/,
  );
  expect(() => secrets.resolve("weather", "http://127.0.0.1:9001")).toThrow(/may not be sent/);
});

test("a secret that is not configured, or has no value, says what to do", () => {
  const secrets = createSecretResolver([fromEnv], {});
  expect(() => secrets.resolve("other", "https://api.example.com")).toThrow(/add it to `secrets`/);
  expect(() => secrets.resolve("weather", "https://api.example.com")).toThrow(/WEATHER_KEY/);
});

test("a file is read anew each time, so that it can be rotated", () => {
  const folder = mkdtempSync(join(tmpdir(), "toolplane-secret-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "key");
  const secret = create(SecretSchema, { name: "k", source: { case: "file", value: path }, hosts: ["h"] });
  const secrets = createSecretResolver([secret], {});
  writeFileSync(path, "first\n");
  expect(secrets.resolve("k", "http://h:1")).toBe("first");
  writeFileSync(path, "second");
  expect(secrets.resolve("k", "http://h:1")).toBe("second");
});
