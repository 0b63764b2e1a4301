import type { Command } from "commander";
import { collect } from "../input/pairs.ts";
import {
  addFollowOptions,
  addStartOptions,
  type FollowOptions,
  type StartOptions,
} from "./follow-options.ts";
import { examples, type Run } from "./run.ts";

export interface ListRunsOptions {
  readonly state?: readonly string[];
  readonly kind?: readonly string[];
  readonly name?: string;
  readonly label?: readonly string[];
  readonly parent?: string;
  readonly limit: string;
}

export interface WatchRunOptions extends FollowOptions {
  readonly after?: string;
}

export interface RetryRunOptions extends StartOptions {
  readonly from?: readonly string[];
}

export interface AnswerOptions {
  readonly comment?: string;
}

export interface ListStepsOptions {
  readonly state?: readonly string[];
  readonly limit: string;
}

export interface BatchOptions extends StartOptions {
  readonly concurrency?: string;
  readonly callTimeout?: string;
  readonly attempts?: string;
}

export const ORCHESTRATION_RUN_STATES = [
  "queued",
  "running",
  "waiting",
  "succeeded",
  "failed",
  "cancelled",
] as const;
export const RUN_KINDS = ["batch", "workflow", "requirement", "agent"] as const;
export const STEP_STATES = [
  "pending",
  "running",
  "waiting",
  "succeeded",
  "failed",
  "skipped",
  "cancelled",
] as const;

const RUN = "the run: its id or the beginning of it, latest, or latest~1";

export function addOrchestrationRunCommands(program: Command, run: Run): void {
  const runs = program
    .command("run")
    .alias("runs")
    .summary("list, watch, cancel, retry and answer runs")
    .description(
      "Shows and steers runs: of workflows, batches of calls, requirements and agents. Without a verb: lists them. " +
        "Exit codes of verbs that wait for a run: 0 it succeeded, 1 it failed, 9 it was cancelled.",
    )
    .addHelpText(
      "after",
      examples(
        "toolplane run",
        "toolplane run watch latest",
        "toolplane run approve latest",
        "toolplane run retry 0197b5c2",
      ),
    );
  addLooking(runs, run);
  addSteering(runs, run);
  addBatch(runs, run);
}

function addLooking(runs: Command, run: Run): void {
  runs
    .command("list", { isDefault: true })
    .summary("list runs")
    .description("Lists runs, the newest first.")
    .option(
      "--state <state>",
      `only in this state: ${ORCHESTRATION_RUN_STATES.join(", ")}; repeatable`,
      collect,
    )
    .option("--kind <kind>", `only of this kind: ${RUN_KINDS.join(", ")}; repeatable`, collect)
    .option("--name <name>", "only of this workflow or agent")
    .option("--label <key=value>", "only with this label; repeatable", collect)
    .option("--parent <run>", "only those that this run started")
    .option("--limit <n>", "list at most so many; 0 means all", "50")
    .addHelpText(
      "after",
      examples(
        "toolplane run list --state waiting",
        "toolplane run list --name nightly --state failed",
        "toolplane run list --json | jq -r '.runs[].id'",
      ),
    )
    .action(
      run(async (context, options: ListRunsOptions) =>
        (await import("../actions/orchestration/look-at-runs.ts")).listRuns(context, options),
      ),
    );

  runs
    .command("show")
    .summary("show a run with its steps and output")
    .description("Shows a run: how it stands, its steps, what failed, what it waits for, and its output.")
    .argument("<run-id>", RUN)
    .option("--limit <n>", "show at most so many lines of steps; 0 means all", "60")
    .addHelpText("after", examples("toolplane run show latest", "toolplane run show 0197b5c2 --json"))
    .action(
      run(async (context, name: string, options: { readonly limit: string }) =>
        (await import("../actions/orchestration/look-at-runs.ts")).showRun(context, name, options),
      ),
    );

  addFollowOptions(
    runs
      .command("watch")
      .summary("watch a run live")
      .description(
        "Shows a run live, from its beginning to its end: its steps, what models write, and what they use up. " +
          "In a pipe: lines of text, or with --json every event. Leaving does not stop the run.",
      )
      .argument("<run-id>", RUN)
      .option("--after <sequence>", "begin after this event (0)"),
  )
    .addHelpText(
      "after",
      examples(
        "toolplane run watch latest",
        "toolplane run watch 0197b5c2 --json | jq .stepFinished",
        "toolplane run watch latest --output json > output.json",
      ),
    )
    .action(
      run(async (context, name: string, options: WatchRunOptions) =>
        (await import("../actions/orchestration/steer-run.ts")).watchRun(context, name, options),
      ),
    );

  runs
    .command("steps")
    .summary("list the steps of a run")
    .description("Lists the steps of a run, or those at and below paths.")
    .argument("<run-id>", RUN)
    .argument("[path...]", "only steps at or below these paths, such as review or notify[3]")
    .option("--state <state>", `only in this state: ${STEP_STATES.join(", ")}; repeatable`, collect)
    .option("--limit <n>", "list at most so many; 0 means all", "100")
    .addHelpText(
      "after",
      examples(
        "toolplane run steps latest",
        "toolplane run steps latest notify --state failed",
        "toolplane run steps latest review --json | jq '.steps[].output'",
      ),
    )
    .action(
      run(async (context, name: string, paths: string[], options: ListStepsOptions) =>
        (await import("../actions/orchestration/look-at-runs.ts")).listSteps(context, name, paths, options),
      ),
    );

  runs
    .command("output")
    .summary("print what a run or step gave back")
    .description(
      "Prints what a run gave back, or one of its steps: a model's answer as text, anything else as JSON.",
    )
    .argument("<run-id>", RUN)
    .argument("[path]", "the step, such as fetch")
    .addHelpText(
      "after",
      examples("toolplane run output latest", "toolplane run output latest fetch --json | jq .temperature"),
    )
    .action(
      run(async (context, name: string, path: string | undefined) =>
        (await import("../actions/orchestration/look-at-runs.ts")).printRunOutput(context, name, path),
      ),
    );
}

function addSteering(runs: Command, run: Run): void {
  runs
    .command("cancel")
    .summary("stop a run")
    .description("Stops a run: running calls are cancelled at once, on whichever replica.")
    .argument("<run-id>", RUN)
    .option("--message <text>", "why, for people")
    .addHelpText("after", examples('toolplane run cancel latest --message "wrong input"'))
    .action(
      run(async (context, name: string, options: { readonly message?: string }) =>
        (await import("../actions/orchestration/steer-run.ts")).cancelRun(context, name, options),
      ),
    );

  addStartOptions(
    runs
      .command("retry")
      .summary("go on where a run ended")
      .description(
        "Starts a run that goes on where one that failed or was cancelled ended: steps that had succeeded are taken over, " +
          "the others run anew. Shows it live.",
      )
      .argument("<run-id>", RUN)
      .option("--from <step>", "run this step anew too, with all that come after it; repeatable", collect),
  )
    .addHelpText("after", examples("toolplane run retry latest", "toolplane run retry 0197b5c2 --from fetch"))
    .action(
      run(async (context, name: string, options: RetryRunOptions) =>
        (await import("../actions/orchestration/steer-run.ts")).retryRun(context, name, options),
      ),
    );

  for (const { verb, summary, what, approved } of [
    {
      verb: "approve",
      summary: "say yes to what a run asks",
      what: "Says yes to what a run asks, so that it goes on.",
      approved: true,
    },
    {
      verb: "reject",
      summary: "say no to what a run asks",
      what: "Says no to what a run asks: the step that asked fails.",
      approved: false,
    },
  ]) {
    runs
      .command(verb)
      .summary(summary)
      .description(what)
      .argument("<run-id>", RUN)
      .argument("[path]", "the step that asks; only where several do")
      .option("--comment <text>", "what to say to it")
      .addHelpText(
        "after",
        examples(
          `toolplane run ${verb} latest`,
          `toolplane run ${verb} 0197b5c2 gate --comment "looked at it with Ada"`,
        ),
      )
      .action(
        run(async (context, name: string, path: string | undefined, options: AnswerOptions) =>
          (await import("../actions/orchestration/steer-run.ts")).answerRun(
            context,
            name,
            path,
            approved,
            options,
          ),
        ),
      );
  }
}

function addBatch(runs: Command, run: Run): void {
  addStartOptions(
    runs
      .command("batch")
      .summary("call many tools side by side")
      .description(
        "Calls many tools side by side in one durable run, and shows it live. The calls are JSON: a list, or one a line, of " +
          '{"tool": …, "arguments": {…}}; further fields are those of toolplane.tools.v1.ToolCall. --timeout bounds the run.',
      )
      .argument("<file>", "the calls; - reads stdin")
      .option("--concurrency <n>", "how many may run at once (5)")
      .option("--call-timeout <time>", "how long an attempt of a call may take (60s)")
      .option("--attempts <n>", "how often a call may be tried (1)"),
  )
    .addHelpText(
      "after",
      examples(
        "toolplane run batch calls.json --concurrency 20",
        `echo '{"tool": "weather.GetForecast", "arguments": {"city": "Berlin"}}' | toolplane run batch -`,
        "toolplane run batch calls.ndjson --output json | jq '.[].result'",
      ),
    )
    .action(
      run(async (context, file: string, options: BatchOptions) =>
        (await import("../actions/orchestration/run-batch.ts")).runBatch(context, file, options),
      ),
    );
}
