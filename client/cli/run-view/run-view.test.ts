import { PassThrough } from "node:stream";
import { create } from "@bufbuild/protobuf";
import { anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { Command } from "commander";
import { describe, expect, it } from "vitest";
import { aRun, aStep, finished, numbered, RUN_ID, START, started } from "../../testing/scripted-run.ts";
import { textWidth } from "../output/text-width.ts";
import { createTerminal } from "../terminal.ts";
import { createEventLines } from "./event-lines.ts";
import { renderLive } from "./live-view.ts";
import { renderOutcome } from "./outcome.ts";
import { applyEvent, createRunTree, type RunTree } from "./run-tree.ts";
import { dollars, errorText, usageText } from "./states.ts";

const NOW = START + 12_345;
const quiet = { interruption: undefined, hint: "" };

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

function fold(...kinds: Parameters<typeof numbered>[0]): RunTree {
  const tree = createRunTree();
  for (const event of numbered([["", { case: "created", value: aRun() }], ...kinds])) applyEvent(tree, event);
  return tree;
}

const refused = create(StatusSchema, {
  code: Code.Unavailable,
  message: "connection\u001b[2J refused",
  details: [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "NO_INSTANCE" }))],
});

/** A run in the midst of it: 12 steps, a model at work, a fan-out with failures, a question. */
const busy = () =>
  fold(
    [
      "",
      {
        case: "planned",
        value: { steps: Array.from({ length: 12 }, (_, n) => ({ path: `s${n}`, kind: "tool" })) },
      },
    ],
    started("s0", { target: "weather.GetForecast" }),
    finished(aStep("s0", { target: "weather.GetForecast" })),
    started("s1", { kind: "requirement", target: "anthropic/claude" }),
    started("s1/turn1", { kind: "turn" }),
    [
      "s1/turn1",
      { case: "modelDelta", value: { text: "Berlin 购物车 is\u001b[31m warm,\nRome is warmer." } },
    ],
    started("s2", { kind: "fan_out", target: "mail.Send", items: 10_000 }),
    finished(aStep("s2[3]", { state: StepState.FAILED, error: refused })),
    finished(aStep("s2[4]")),
    started("s3", { attempt: 2 }),
    started("s4", { kind: "approval" }),
    ["s4", { case: "approvalRequested", value: { path: "s4", message: "Deploy to\nproduction?" } }],
    [
      "",
      {
        case: "usage",
        value: {
          total: create(UsageSchema, {
            turns: 2,
            inputTokens: 1_200n,
            outputTokens: 34n,
            costUsd: 0.0123,
            toolCalls: 3,
          }),
        },
      },
    ],
  );

describe("a live run", () => {
  it("shows every step with its state in words, what is asked, and what models have used up", () => {
    const lines = renderLive(terminalOf(110, 40), busy(), quiet).split("\n");
    expect(lines[0]).toBe("● running  workflow nightly v3  1 of 12 steps  12 s  5093e212");
    expect(lines).toContainEqual(
      expect.stringMatching(/^✓ succeeded {2}s0 +1\.5 s {2}tool weather\.GetForecast$/),
    );
    expect(lines).toContainEqual(
      expect.stringMatching(/^● running {4}s1 +8 s {2}requirement anthropic\/claude$/),
    );
    expect(lines).toContainEqual(expect.stringMatching(/^● running {6}turn1 .* turn$/));
    expect(lines).toContainEqual(expect.stringMatching(/^ +│ Rome is warmer\.$/));
    expect(lines).toContainEqual(
      expect.stringMatching(/^● running {4}s2 .* 2 of 10,000 ended, 1 failed {2}fan out mail\.Send$/),
    );
    expect(lines).toContainEqual(
      expect.stringMatching(/^✗ failed {7}s2\[3\] .* UNAVAILABLE: connection�\[2J refused \(NO_INSTANCE\)/),
    );
    expect(lines).toContainEqual(expect.stringMatching(/^● running {4}s3 .* attempt 2/));
    expect(lines).toContainEqual(expect.stringMatching(/^\? approval {3}s4 .* Deploy to production\?/));
    expect(lines).toContainEqual(expect.stringMatching(/^○ pending {4}s11 +tool$/));
    expect(lines).toContain("? s4 asks: Deploy to production?");
    expect(lines).toContain("  toolplane run approve 5093e212 s4    or: toolplane run reject 5093e212 s4");
    expect(lines.at(-1)).toBe("2 turns · 3 calls · 1,234 tokens (1,200 in, 34 out) · $0.012");
    expect(lines.join("")).not.toContain("\u001b");
  });

  it.each([
    [20, 5],
    [20, 24],
    [34, 8],
    [60, 12],
    [80, 24],
    [200, 60],
  ])("fits a terminal of %i columns and %i rows", (columns, rows) => {
    const lines = renderLive(terminalOf(columns, rows), busy(), {
      ...quiet,
      hint: "Ctrl-C leaves the run",
    }).split("\n");
    expect(lines.length).toBeLessThan(rows);
    for (const line of lines) expect(textWidth(line)).toBeLessThanOrEqual(columns);
    expect(lines[0]).toContain("running");
  });

  it("in a low terminal shows first what runs and what failed, and counts the rest", () => {
    const tree = fold(
      ...Array.from({ length: 500 }, (_, n) => finished(aStep(`done${n}`))),
      finished(aStep("bad", { state: StepState.FAILED })),
      started("now"),
      ["", { case: "planned", value: { steps: [{ path: "later" }] } }],
    );
    const lines = renderLive(terminalOf(80, 7), tree, quiet).split("\n");
    expect(lines.slice(1).map((line) => line.replace(/ {2,}.*/, ""))).toEqual([
      "✓ succeeded",
      "✗ failed",
      "● running",
      "○ pending",
      "… 499 more: 499 succeeded",
    ]);
  });

  it("says that the connection is lost, and that the run is being cancelled", () => {
    const tree = fold(["", { case: "cancelRequested", value: { by: "ada" } }]);
    const interruption = { error: new ConnectError("gone", Code.Unavailable), attempt: 3, delayMs: 100 };
    expect(renderLive(terminalOf(80), tree, { ...quiet, interruption })).toMatch(
      /^✗ connection lost \(gone\); attempt 3/,
    );
    expect(renderLive(terminalOf(80), tree, quiet)).toMatch(/^■ cancelling {2}workflow nightly v3/);
    expect(renderLive(terminalOf(80), createRunTree(), quiet)).toBe("○ connecting");
  });
});

describe("the events of a run as lines", () => {
  it("have one line each, and one for every line of a model", () => {
    const linesOf = createEventLines(terminalOf(80), RUN_ID);
    const events = numbered([
      ["", { case: "created", value: aRun({ state: RunState.QUEUED }) }],
      ["", { case: "started", value: { worker: "w2", takeover: true } }],
      ["", { case: "planned", value: { steps: [{ path: "fetch" }], maxConcurrency: 10 } }],
      started("fetch", { target: "weather.GetForecast", attempt: 2 }),
      ["fetch", { case: "stepProgress", value: { message: "half\nway", percent: 50 } }],
      [
        "fetch",
        { case: "stepRetrying", value: { attempt: 2, error: refused, delay: durationFromMs(1_000) } },
      ],
      finished(aStep("fetch", { attempts: 3, fallback: true })),
      ["main/turn1", { case: "modelDelta", value: { text: "one\nt" } }],
      ["main/turn1", { case: "modelDelta", value: { text: "wo\nthr" } }],
      ["main/turn1", { case: "toolSelection", value: { allowed: 2 } }],
      finished(aStep("main/turn1", { kind: "turn" })),
      ["gate", { case: "approvalRequested", value: { path: "gate", message: "Deploy?" } }],
      ["", { case: "waiting", value: {} }],
      ["gate", { case: "approvalResolved", value: { approved: false, by: "ada", comment: "no\tway" } }],
      ["", { case: "cancelRequested", value: { by: "ada", message: "enough" } }],
      ["", { case: "finished", value: aRun({ state: RunState.CANCELLED }) }],
    ]);
    const lines = events
      .flatMap((event) => linesOf(event))
      .map((line) => line.replace(/^\d\d:\d\d:\d\d {2}/, ""));
    expect(lines).toEqual([
      `○ queued     workflow nightly v3  run ${RUN_ID}`,
      "● running    taken over from a worker that died  worker w2",
      "· planned    1 step  10 at once",
      "● running    fetch  tool weather.GetForecast  attempt 2",
      "· progress   fetch  half way  50 %",
      "◌ retrying   fetch  UNAVAILABLE: connection�[2J refused (NO_INSTANCE)  attempt 3 in 1 s",
      "✓ succeeded  fetch  1.5 s  3 attempts  fallback",
      "│ writes     main/turn1  one",
      "│ writes     main/turn1  two",
      "· tools      main/turn1  all 2 tools offered",
      "│ writes     main/turn1  thr",
      "✓ succeeded  main/turn1  1.5 s",
      "? approval   gate  Deploy?",
      "  toolplane run approve 5093e212 gate    or: toolplane run reject 5093e212 gate",
      "◌ waiting",
      "✗ refused    gate  by ada  no way",
      "■ cancelling  by ada  enough",
      "■ cancelled  workflow nightly v3",
    ]);
  });
});

describe("the outcome of a run", () => {
  it("names what made it fail, but not what a model repaired", () => {
    const tree = fold(
      started("main", { kind: "requirement" }),
      finished(aStep("main/turn1/call1", { state: StepState.FAILED, error: refused })),
      finished(aStep("main")),
      finished(aStep("notify[3]", { state: StepState.FAILED, error: refused })),
      finished(
        aStep("notify", {
          state: StepState.FAILED,
          error: create(StatusSchema, { code: Code.Aborted, message: "1 item failed" }),
        }),
      ),
    );
    const run = aRun({ state: RunState.FAILED, steps: { total: 4, failed: 3 } });
    const lines = renderOutcome(terminalOf(80), run, tree);
    expect(lines[0]).toBe("✗ failed  workflow nightly v3  4 steps  3 failed");
    expect(lines.filter((line) => line.includes("✗ ")).slice(1)).toEqual([
      "  ✗ notify     ABORTED: 1 item failed",
      "  ✗ notify[3]  UNAVAILABLE: connection�[2J refused (NO_INSTANCE)",
    ]);
    expect(lines.at(-1)).toBe("  Go on where it ended: toolplane run retry 5093e212");
  });

  it("tells a failure once when it is that of the run", () => {
    const tree = fold(finished(aStep("notify", { state: StepState.FAILED, error: refused })));
    const error = create(StatusSchema, { ...refused, message: `step "notify": ${refused.message}` });
    const run = aRun({ state: RunState.FAILED, error, steps: { total: 1, failed: 1 } });
    const lines = renderOutcome(terminalOf(80), run, tree);
    expect(lines.filter((line) => line.includes("refused"))).toEqual([
      expect.stringContaining('UNAVAILABLE: step "notify":'),
    ]);
  });
});

it("a step that was not run says whether it was taken over or comes from the cache", () => {
  const linesOf = createEventLines(terminalOf(80), RUN_ID);
  const events = numbered([
    finished(aStep("fetch", { reused: true })),
    finished(aStep("task0", { kind: "agent", reused: true, usage: { savedTokens: 50n } })),
  ]);
  expect(events.flatMap((event) => linesOf(event)).map((line) => line.trim().split("  ").at(-1))).toEqual([
    "taken over",
    "from the cache",
  ]);
});

it("sums are written with as many digits as they need", () => {
  expect([0.00042, 0.0123, 0.5, 1.5, 1234.5].map(dollars)).toEqual([
    "$0.00042",
    "$0.012",
    "$0.5",
    "$1.50",
    "$1,234.50",
  ]);
});

it("what models have used up says what is not known, and what was saved", () => {
  expect(usageText(undefined)).toBe("");
  expect(usageText(create(UsageSchema, { inputTokens: 10n, costIncomplete: true }))).toBe(
    "10 tokens (10 in, 0 out) · price not known",
  );
  expect(
    usageText(
      create(UsageSchema, {
        turns: 1,
        inputTokens: 100n,
        cachedInputTokens: 90n,
        outputTokens: 1n,
        costUsd: 2,
        costIncomplete: true,
        savedTokens: 50n,
        savedCostUsd: 0.1,
      }),
    ),
  ).toBe(
    "1 turn · 101 tokens (100 in, 90 of them cached, 1 out) · at least $2.00 · 50 tokens and $0.1 saved",
  );
});

it("an error whose code is not known is an error all the same", () => {
  expect(errorText(create(StatusSchema, { code: 99, message: "odd" }))).toContain("odd");
  expect(errorText(undefined)).toBe("");
});
