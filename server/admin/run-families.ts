import type { MetricFamily } from "./exposition.ts";
import { counter, gauge } from "./families.ts";
import type { AppendsSnapshot, ModelSnapshot, OpenRunsSnapshot, RunsSnapshot } from "./sources.ts";

/** Runs on all replicas together. */
export function openRunFamilies({ queued, running, waiting }: OpenRunsSnapshot): MetricFamily[] {
  return [
    gauge(
      "toolplane_runs",
      "Runs that have not ended, on all replicas together; those that wait for an approval or a time as waiting.",
      [
        [{ state: "queued" }, queued],
        [{ state: "running" }, running],
        [{ state: "waiting" }, waiting],
      ],
    ),
  ];
}

/** What this server does for runs. */
export function runFamilies(snapshot: RunsSnapshot): MetricFamily[] {
  const { active, watchers, runs, steps, takeovers, parkings, modelToolCalls, models, appends } = snapshot;
  return [
    gauge("toolplane_runs_active", "Runs that this server works on.", active),
    gauge("toolplane_run_watchers", "Watchers of runs.", watchers),
    counter(
      "toolplane_runs_begun_total",
      "Runs that this server was the first to work on.",
      runs.map(({ kind, begun }) => [{ kind }, begun] as const),
    ),
    counter("toolplane_runs_ended_total", "Runs that have ended while this server had them.", endings(runs)),
    counter("toolplane_run_takeovers_total", "Runs taken over from a server that had died.", takeovers),
    counter(
      "toolplane_run_parkings_total",
      "How often a run was put aside until an approval or a time.",
      parkings,
    ),
    counter(
      "toolplane_run_step_attempts_total",
      "Attempts of steps.",
      steps.map(({ kind, attempts }) => [{ kind }, attempts] as const),
    ),
    counter(
      "toolplane_run_step_retries_total",
      "Attempts of steps beyond the first.",
      steps.map(({ kind, retries }) => [{ kind }, retries] as const),
    ),
    counter("toolplane_run_steps_ended_total", "Steps that have ended, by how.", endings(steps)),
    counter("toolplane_model_tool_calls_total", "Calls of tools that models have made.", modelToolCalls),
    ...modelFamilies(models),
    ...appendFamilies(appends),
  ];
}

function endings(kinds: RunsSnapshot["runs"] | RunsSnapshot["steps"]) {
  return kinds.flatMap(({ kind, ended }) =>
    Object.entries(ended).map(([state, count]) => [{ kind, state }, count] as const),
  );
}

function modelFamilies(models: readonly ModelSnapshot[]): MetricFamily[] {
  const each = (value: (model: ModelSnapshot) => number) =>
    models.map((model) => [{ model: model.model }, value(model)] as const);
  return [
    gauge(
      "toolplane_model_turns_in_flight",
      "Requests to models that run, or wait for their turn.",
      each(({ inFlight }) => inFlight),
    ),
    counter(
      "toolplane_model_turns_total",
      "Requests to models that have ended; of more models than fit, as the model other.",
      models.flatMap(({ model, turns }) =>
        [...turns].map(([code, count]) => [{ model, code }, count] as const),
      ),
    ),
    counter(
      "toolplane_model_turn_seconds_total",
      "How long requests to models took, together.",
      each(({ totalMs }) => totalMs / 1_000),
    ),
    counter(
      "toolplane_model_tokens_total",
      "Tokens that models have read and written; cached_input is a part of input.",
      models.flatMap(({ model, inputTokens, cachedInputTokens, outputTokens }) => [
        [{ model, kind: "input" }, inputTokens] as const,
        [{ model, kind: "cached_input" }, cachedInputTokens] as const,
        [{ model, kind: "output" }, outputTokens] as const,
      ]),
    ),
    counter(
      "toolplane_model_cost_usd_total",
      "What models have cost, as far as prices are known.",
      each(({ costUsd }) => costUsd),
    ),
  ];
}

function appendFamilies({ pending, appends, events, failures, totalMs, maxMs }: AppendsSnapshot) {
  return [
    gauge("toolplane_run_appends_pending", "Appends of runs that are not durable yet.", pending),
    counter("toolplane_run_appends_total", "Appends of runs that are durable.", appends),
    counter("toolplane_run_events_total", "Events of runs that are durable.", events),
    counter("toolplane_run_append_failures_total", "Appends of runs that failed.", failures),
    counter(
      "toolplane_run_append_seconds_total",
      "How long appends of runs took to be durable, together.",
      totalMs / 1_000,
    ),
    gauge(
      "toolplane_run_append_longest_seconds",
      "The longest that an append of a run took to be durable.",
      maxMs / 1_000,
    ),
  ];
}
