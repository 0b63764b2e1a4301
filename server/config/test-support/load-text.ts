import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DomainError } from "@toolplane/framework";
import { expect } from "vitest";
import { loadSettings } from "../load.ts";
import type { Settings } from "../settings.ts";

/** What a configuration file with this text sets. */
export function loadText(text: string, env: NodeJS.ProcessEnv = {}): Settings {
  const folder = mkdtempSync(join(tmpdir(), "toolplane-config-"));
  try {
    const config = join(folder, "server.yaml");
    writeFileSync(config, text);
    return loadSettings({ config }, env);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What is wrong with such a file: its fields, and what is said about them. */
export function mistakesIn(text: string, env: NodeJS.ProcessEnv = {}): Record<string, string> {
  try {
    loadText(text, env);
  } catch (error) {
    expect.assert(error instanceof DomainError);
    return Object.fromEntries(
      (error.init.fields ?? []).map(({ field, description }) => [field, description]),
    );
  }
  return expect.unreachable("the configuration was accepted");
}
