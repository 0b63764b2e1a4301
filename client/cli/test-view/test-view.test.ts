import { PassThrough } from "node:stream";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { TestRunComparisonSchema } from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import {
  FileCoverageSchema,
  TestResultSchema,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { TestRunProgressSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { Command } from "commander";
import { describe, expect, it } from "vitest";
import { aTestRun } from "../../testing/report-server.ts";
import { textWidth } from "../output/text-width.ts";
import { createTerminal } from "../terminal.ts";
import { renderComparison } from "./comparison.ts";
import { renderFailure } from "./failure.ts";
import { applyNews, createLiveRun } from "./live-run.ts";
import { renderLive } from "./live-view.ts";
import { missedLines, renderRuns } from "./tables.ts";

const NOW = 10_000;

const terminalOf = (columns: number, rows = 24) =>
  createTerminal(
    {
      stdin: new PassThrough(),
      stdout: Object.assign(new PassThrough(), { isTTY: true, columns, rows }),
      stderr: new PassThrough(),
      env: {},
      signal: new AbortController().signal,
      interrupt: () => {},
      now: () => NOW,
    },
    new Command(),
    { json: false, color: false },
  );

/** A run in the midst of it. */
function aLiveRun() {
  const live = createLiveRun();
  applyNews(live, { kind: "connected", run: aTestRun({ id: "0197b5c2-aaaa" }) }, NOW);
  applyNews(
    live,
    {
      kind: "progress",
      progress: create(TestRunProgressSchema, {
        percent: 25,
        counts: { total: 400, passed: 97, failed: 3 },
        running: 12,
        runningTests: Array.from({ length: 12 }, (_, n) => ({
          file: "test/features/checkout/a-rather-long-name.test.ts",
          suitePath: ["the cart 购物车"],
          name: `case ${n}`,
        })),
        elapsed: durationFromMs(12_345),
      }),
    },
    NOW,
  );
  return live;
}

describe("a live run", () => {
  it("says that it is being cancelled, until it has ended", () => {
    const live = { ...aLiveRun(), isCancelling: true };
    expect(renderLive(terminalOf(80), live).split("\n")[0]).toBe(
      "■ cancelling the run; Ctrl-C again leaves it",
    );
  });

  it("is a bar, counts, and what runs now", () => {
    expect(renderLive(terminalOf(80), aLiveRun())).toBe(
      [
        "● running  shop in default  0197b5c2-aaaa",
        `${"█".repeat(10)}${"░".repeat(30)}  25 %  12 s  100 of 400 tests`,
        "3 failed  97 passed",
        ...Array.from(
          { length: 5 },
          (_, n) => `› test/features/checkout/a-rather-long-name.test.ts > the cart 购物车 > case ${n}`,
        ),
        "  … 7 more running",
      ].join("\n"),
    );
  });

  it.each([20, 30, 40, 60, 80, 120, 200])("fits into %i columns", (columns) => {
    for (const line of renderLive(terminalOf(columns), aLiveRun()).split("\n")) {
      expect(textWidth(line)).toBeLessThanOrEqual(columns);
    }
  });

  it.each([8, 10, 12, 24])("leaves room for failures in %i rows", (rows) => {
    expect(renderLive(terminalOf(80, rows), aLiveRun()).split("\n").length).toBeLessThan(rows);
  });

  it("goes on counting seconds between two messages, and says when the connection is lost", () => {
    const live = aLiveRun();
    live.elapsed = { ms: 12_345, at: NOW - 3_000 };
    expect(renderLive(terminalOf(80), live)).toContain("15 s");
    live.interruption = { error: undefined, attempt: 2, delayMs: 100 };
    expect(renderLive(terminalOf(80), live)).toContain(
      "✗ connection lost (the server ended the stream); attempt 2",
    );
  });

  it("has no bar before a test is known", () => {
    const live = createLiveRun();
    expect(renderLive(terminalOf(80), live)).toBe("○ connecting\n");
  });
});

describe("a failure", () => {
  const failureOf = (message: string, more: object = {}) =>
    renderFailure(
      terminalOf(80),
      create(TestResultSchema, {
        test: { file: "a.test.ts", name: "works", parameters: "1-2" },
        status: TestStatus.FAILED,
        attempts: [{ status: TestStatus.FAILED, failures: [{ message, ...more }] }],
      }),
    );

  it("is shortened, and cannot control the terminal", () => {
    const lines = failureOf(`\u001b[31mred\u001b[0m\u0007\n${"more\n".repeat(50)}`);
    expect(lines.slice(0, 2)).toEqual(["✗ failed  a.test.ts > works[1-2]", "    red�"]);
    expect(lines.at(-1)).toBe("    … 40 more lines");
  });

  it("tells what was expected unless the message does", () => {
    expect(failureOf("differs", { expected: "1", actual: "2" })).toContain("    expected 1");
    expect(failureOf("expected 1, got 2", { expected: "1", actual: "2" })).not.toContain("    expected 1");
  });
});

it.each([40, 60, 80, 120])("tables of runs fit into %i columns", (columns) => {
  const run = aTestRun({
    state: TestRunState.FAILED,
    project: "a-project-with-a-long-name",
    counts: { failed: 3 },
  });
  for (const line of renderRuns(terminalOf(columns), [run, run]).split("\n")) {
    expect(textWidth(line)).toBeLessThanOrEqual(Math.max(columns, 50));
  }
});

it("lines that did not run are ranges", () => {
  const hits = [0, 0, 3, 0, 1, 0];
  const file = create(FileCoverageSchema, {
    file: "a.ts",
    lines: hits.map((n, index) => ({ line: index * 2 + 1, hits: n })),
  });
  expect(missedLines(file)).toBe("1-3, 7, 11");
});

it("a comparison says its verdict first, and what to do last", () => {
  const text = renderComparison(
    terminalOf(100),
    create(TestRunComparisonSchema, {
      base: [{ id: "a", project: "shop", context: { branch: "main" } }],
      head: [{ id: "b", project: "shop" }],
      comparability: { comparable: true, issues: [{ reason: "DIRTY_TREE", message: "head had changes" }] },
      summary: { slower: 1, durationDelta: durationFromMs(40), durationDeltaPercent: 33.3 },
      coverage: {
        lineDelta: -1.25,
        files: [{ file: "a.ts", basePercent: 80, lost: [{ first: 3, last: 5 }] }],
      },
      recommendations: [{ text: "Run it again", evidence: ["one run a side"] }],
    }),
  );
  const lines = text.split("\n");
  expect(lines[0]).toBe("✓ no regression");
  expect(text).toContain("▲ head had changes");
  expect(text).toContain("+40 ms (+33 %)");
  expect(text).toContain("lines -1.25 points");
  expect(text).toMatch(/a\.ts +80\.0 % +3-5/);
  expect(lines.at(-1)?.trim()).toBe("one run a side");
});
