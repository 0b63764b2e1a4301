import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BenchRow } from "./row.ts";

const CLI = join(import.meta.dirname, "..", "client", "bin", "toolplane.js");
const RUNS = 5;

/** How long the installed server takes from the command to the line that says it serves. */
export async function run(): Promise<BenchRow[]> {
  const cold: number[] = [];
  const warm: number[] = [];
  for (let index = 0; index < RUNS; index++) {
    const dataDir = await mkdtemp(join(tmpdir(), "toolplane-bench-"));
    try {
      cold.push(await startOnce(dataDir));
      warm.push(await startOnce(dataDir));
    } finally {
      await rm(dataDir, { recursive: true, force: true });
    }
  }
  return [
    toRow("from the command to serving, empty data directory, median of 5", median(cold), 3_000),
    toRow("from the command to serving, existing data directory, median of 5", median(warm), 1_000),
  ];
}

async function startOnce(dataDir: string): Promise<number> {
  const begin = performance.now();
  const server = spawn(process.execPath, [CLI, "serve"], {
    env: { ...process.env, TOOLPLANE_LISTEN: "127.0.0.1:0", TOOLPLANE_DATA_DIR: dataDir },
    stdio: ["ignore", "pipe", "ignore"],
  });
  try {
    await serving(server);
    return performance.now() - begin;
  } finally {
    server.kill("SIGTERM");
    await once(server, "exit");
  }
}

async function serving(server: ChildProcess): Promise<void> {
  let output = "";
  for await (const chunk of server.stdout ?? []) {
    output += chunk;
    if (output.includes("is serving")) {
      return;
    }
  }
  throw new Error(`the server ended before it served: ${output}`);
}

function toRow(what: string, ms: number, limitMs: number): BenchRow {
  return {
    area: "start",
    what,
    ours: `${Math.round(ms)} ms`,
    peer: "–",
    peerName: "",
    ratio: "–",
    target: `< ${limitMs} ms`,
    pass: ms < limitMs,
  };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
