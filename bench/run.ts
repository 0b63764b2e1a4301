// Runs the benchmarks, prints a table and writes RESULTS.md.
//
//   npm run bench              all
//   npm run bench -- pool      only those named
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import type { BenchRow } from "./row.ts";

const suites: Record<string, () => Promise<{ run(): Promise<BenchRow[]> }>> = {
  start: () => import("./start.ts"),
  registry: () => import("./registry.ts"),
  pool: () => import("./pool.ts"),
  serving: () => import("./serving.ts"),
  chain: () => import("./chain.ts"),
  "rate-limit": () => import("./rate-limit.ts"),
  breaker: () => import("./breaker.ts"),
  retry: () => import("./retry.ts"),
  concurrency: () => import("./concurrency.ts"),
  deduplicate: () => import("./deduplicate.ts"),
  cache: () => import("./cache.ts"),
  batch: () => import("./batch.ts"),
  policies: () => import("./policies.ts"),
  "shared-limit": () => import("./shared-limit.ts"),
  "request-ids": () => import("./request-ids.ts"),
  calls: () => import("./calls.ts"),
  trip: () => import("./trip.ts"),
  faults: () => import("./faults.ts"),
  comparison: () => import("./comparison.ts"),
  "event-log": () => import("./event-log.ts"),
  "test-runs": () => import("./test-runs.ts"),
  orchestration: () => import("./orchestration.ts"),
};

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !(name in suites));
if (unknown.length > 0) {
  console.error(`No such benchmark: ${unknown.join(", ")}. There are: ${Object.keys(suites).join(", ")}.`);
  process.exit(2);
}

const rows: BenchRow[] = [];
for (const [name, load] of Object.entries(suites)) {
  if (chosen.length === 0 || chosen.includes(name)) {
    console.error(`running ${name} …`);
    const suite = await load();
    rows.push(...(await suite.run()));
  }
}

const table = toTable(rows);
console.log(table);
if (chosen.length === 0) {
  writeFileSync(join(import.meta.dirname, "RESULTS.md"), toReport(table));
}
process.exit(rows.every(({ pass }) => pass) ? 0 : 1);

function toTable(results: readonly BenchRow[]): string {
  const header = ["area", "what", "ours", "peer", "ratio", "target", ""];
  const body = results.map(({ area, what, ours, peer, peerName, ratio, target, pass }) => [
    area,
    what,
    ours,
    peerName ? `${peer} (${peerName})` : peer,
    ratio,
    target,
    target === "–" ? "" : pass ? "met" : "MISSED",
  ]);
  const widths = header.map((title, column) =>
    Math.max(title.length, ...body.map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  return [
    line(header),
    `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`,
    ...body.map(line),
  ].join("\n");
}

function toReport(results: string): string {
  const memory = Math.round(totalmem() / 2 ** 30);
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
  return [
    "# Benchmark results",
    "",
    `${new Date().toISOString().slice(0, 10)}, commit ${commit}, ${cpus().length} × ${cpus()[0]?.model ?? "unknown processor"}, ${memory} GiB, Node ${process.version}.`,
    "Written by `npm run bench`; figures of the machine that ran it. Ratios compare two things measured in that run.",
    "",
    results,
    "",
  ].join("\n");
}
