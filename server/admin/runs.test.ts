import { expect, test } from "vitest";
import type { RunsSnapshot } from "./admin.ts";
import { parseExposition } from "./test-support/parse-exposition.ts";
import { serveAdmin } from "./test-support/serve-admin.ts";

const snapshot: RunsSnapshot = {
  active: 2,
  watchers: 3,
  runs: [{ kind: "workflow", begun: 5, ended: { succeeded: 1, failed: 2, cancelled: 0 } }],
  steps: [{ kind: "tool", attempts: 9, retries: 4, ended: { succeeded: 5, failed: 0, skipped: 1 } }],
  takeovers: 1,
  parkings: 6,
  modelToolCalls: 7,
  models: [
    {
      model: "anthropic/claude",
      inFlight: 1,
      turns: new Map([
        ["ok", 3],
        ["unavailable", 1],
      ]),
      totalMs: 2_500,
      inputTokens: 100,
      cachedInputTokens: 60,
      outputTokens: 20,
      costUsd: 0.25,
    },
  ],
  appends: { pending: 1, appends: 10, events: 40, failures: 2, totalMs: 50, maxMs: 20 },
};

test.each(["prometheus", "openmetrics"] as const)("runs are in the metrics (%s)", async (format) => {
  const { metrics } = await serveAdmin({
    runs: { stats: () => snapshot, open: async () => ({ queued: 4, running: 2, waiting: 1 }) },
  });
  const accept = format === "openmetrics" ? "application/openmetrics-text" : "text/plain";
  const text = await (await metrics({ accept })).text();
  const families = [...parseExposition(text, format)].filter(([name]) =>
    /^toolplane_(runs?|model)_?/.test(name),
  );
  expect(Object.fromEntries(families.flatMap(([, { samples }]) => [...samples]))).toEqual({
    'toolplane_runs{state="queued"}': 4,
    'toolplane_runs{state="running"}': 2,
    'toolplane_runs{state="waiting"}': 1,
    "toolplane_runs_active{}": 2,
    "toolplane_run_watchers{}": 3,
    'toolplane_runs_begun_total{kind="workflow"}': 5,
    'toolplane_runs_ended_total{kind="workflow",state="succeeded"}': 1,
    'toolplane_runs_ended_total{kind="workflow",state="failed"}': 2,
    'toolplane_runs_ended_total{kind="workflow",state="cancelled"}': 0,
    "toolplane_run_takeovers_total{}": 1,
    "toolplane_run_parkings_total{}": 6,
    'toolplane_run_step_attempts_total{kind="tool"}': 9,
    'toolplane_run_step_retries_total{kind="tool"}': 4,
    'toolplane_run_steps_ended_total{kind="tool",state="succeeded"}': 5,
    'toolplane_run_steps_ended_total{kind="tool",state="failed"}': 0,
    'toolplane_run_steps_ended_total{kind="tool",state="skipped"}': 1,
    "toolplane_model_tool_calls_total{}": 7,
    'toolplane_model_turns_in_flight{model="anthropic/claude"}': 1,
    'toolplane_model_turns_total{model="anthropic/claude",code="ok"}': 3,
    'toolplane_model_turns_total{model="anthropic/claude",code="unavailable"}': 1,
    'toolplane_model_turn_seconds_total{model="anthropic/claude"}': 2.5,
    'toolplane_model_tokens_total{model="anthropic/claude",kind="input"}': 100,
    'toolplane_model_tokens_total{model="anthropic/claude",kind="cached_input"}': 60,
    'toolplane_model_tokens_total{model="anthropic/claude",kind="output"}': 20,
    'toolplane_model_cost_usd_total{model="anthropic/claude"}': 0.25,
    "toolplane_run_appends_pending{}": 1,
    "toolplane_run_appends_total{}": 10,
    "toolplane_run_events_total{}": 40,
    "toolplane_run_append_failures_total{}": 2,
    "toolplane_run_append_seconds_total{}": 0.05,
    "toolplane_run_append_longest_seconds{}": 0.02,
  });
});

test.each([
  ["is away", () => Promise.reject(new Error("no connection"))],
  ["does not answer", () => new Promise<never>(() => undefined)],
])("what is known without the database is told also while it %s", async (_, open) => {
  const { client } = await serveAdmin({ runs: { stats: () => snapshot, open } });
  const { families } = await client.getMetrics({ namePrefixes: ["toolplane_runs"] });
  expect(families.map(({ name }) => name)).toEqual([
    "toolplane_runs_active",
    "toolplane_runs_begun_total",
    "toolplane_runs_ended_total",
  ]);
});
