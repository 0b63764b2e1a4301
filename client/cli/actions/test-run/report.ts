import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { constants } from "node:os";
import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { TestRunEndReason, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { describeOutcome } from "../../../reporting/outcome.ts";
import { createSpoolSource } from "../../../reporting/spool-source.ts";
import { createUploader, type UploadOutcome } from "../../../reporting/uploader.ts";
import {
  createSpoolWriter,
  execute,
  type PreparedRunner,
  type Runner,
  type RunnerEnd,
  RunnerError,
  type RunnerPlan,
} from "../../../runners/index.ts";
import type { TestReportOptions } from "../../commands/test-report.ts";
import type { Context } from "../../context.ts";
import { ExitCode } from "../../exit-code.ts";
import { oneLine } from "../../output/text-width.ts";
import { countParts, isEmptyPass, runVerdict } from "../../test-view/states.ts";
import { createReport, type KeptReport, keepEnd, removeReport } from "./kept-report.ts";
import { toMadeRun } from "./made-run.ts";
import { chooseRunner, plainRunner } from "./runners.ts";

/** How long an interrupted command goes on to bring the end of its run to the server, in milliseconds. */
const INTERRUPTED_TIMEOUT_MS = 5_000;
const FINISH_TIMEOUT_MS = 30_000;

/** What a shell exits with when a command cannot be started. */
const NOT_STARTED = 127;

/** Runs a test command and reports it. The code to exit with is the command's, whatever becomes of the report. */
export async function reportTests(
  context: Context,
  command: readonly string[],
  options: TestReportOptions,
): Promise<number> {
  const directory = process.cwd();
  const runner = chooseRunner(command, options);
  const made = await toMadeRun(context, options, directory);
  if (made.context !== undefined && !isNode(runner)) made.context.runtime = "";
  const report = await createReport({
    ...made,
    framework: runner.kind === "command" ? "" : runner.kind,
    requestId: randomUUID(),
  });
  await mkdir(report.workFolder);
  const prepared = await prepare(context, runner, {
    command,
    directory,
    env: context.io.env,
    selection: { files: [], namePattern: "", tags: [], tests: [] },
    coverage: options.coverage === true,
    workFolder: report.workFolder,
    spoolFile: report.runnerFile,
  });
  const end = await runAndReport(context, report, directory, {
    ...prepared,
    reports: [...prepared.reports, ...(options.junit ?? [])],
    coverageFiles: [...prepared.coverageFiles, ...(options.coverageFile ?? [])],
  });
  if (runner.kind === "command" && (options.junit ?? []).length === 0 && end !== NOT_STARTED) {
    await context.note(
      context.paintErr.dim(
        "It is not known what this command runs, so there are no results. Name its runner with --runner, or the JUnit XML\n" +
          "that it writes with --junit.",
      ),
    );
  }
  return end;
}

/** Whether tests run in Node, most likely the one that runs this. */
function isNode({ kind }: Runner): boolean {
  return kind === "vitest" || kind === "jest" || kind === "node-test";
}

/** A runner that cannot be driven as it should is run as any command: its tests matter more than their report. */
async function prepare(context: Context, runner: Runner, plan: RunnerPlan): Promise<PreparedRunner> {
  try {
    return await runner.prepare(plan);
  } catch (error) {
    if (!(error instanceof RunnerError)) throw error;
    await context.note(context.paintErr.yellow(`Results are not reported: ${oneLine(error.message)}`));
    return await plainRunner.prepare({ ...plan, coverage: false });
  }
}

async function runAndReport(
  context: Context,
  report: KeptReport,
  directory: string,
  prepared: PreparedRunner,
): Promise<number> {
  const { io } = context;
  const cancelled = new AbortController();
  const writer = createSpoolWriter(report.eventsFile);
  const uploader = createUploader({
    client: (await context.connect()).tests,
    run: report.run,
    source: createSpoolSource(report.eventsFile),
    onCancelled: () => cancelled.abort(new Error("the run was cancelled on the server")),
  });
  try {
    const end = await execute({
      prepared,
      directory,
      env: io.env,
      signal: AbortSignal.any([io.signal, cancelled.signal]),
      timeoutMs: context.timeoutMs,
      spoolFile: report.runnerFile,
      async onEvents(events) {
        // Events may be uploaded much later than they happen.
        for (const init of events) {
          const event = create(TestEventSchema, init);
          event.time ??= timestampNow();
          writer.write(event);
        }
      },
      onOutput: (text, stderr) => void (stderr ? io.stderr : io.stdout).write(text),
    });
    writer.close();
    await keepEnd(report, end);
    const budget = io.signal.aborted ? INTERRUPTED_TIMEOUT_MS : FINISH_TIMEOUT_MS;
    await tell(context, report, await uploader.finish(end, budget));
    if (end.reason === TestRunEndReason.NOT_STARTED) await context.note(oneLine(end.message));
    return exitCodeOf(end);
  } finally {
    uploader.close();
  }
}

/** The command's own exit code; what a shell makes of it where there is none. */
function exitCodeOf(end: RunnerEnd): number {
  if (end.reason === TestRunEndReason.TIMEOUT) return ExitCode.timeout;
  if (end.exitCode !== undefined) return end.exitCode;
  return end.signal === undefined ? NOT_STARTED : 128 + constants.signals[end.signal];
}

/** Says on stderr what became of the report; what the command wrote to stdout stays alone there. */
async function tell(context: Context, report: KeptReport, outcome: UploadOutcome): Promise<void> {
  const { paintErr } = context;
  const isKept = outcome.kind === "refused" || outcome.kind === "unreachable";
  if (!isKept) await removeReport(report);
  if (context.json) {
    const runId = outcome.kind === "finished" ? outcome.run.id : outcome.runId;
    const summary = { report: outcome.kind, runId, folder: isKept ? report.folder : undefined };
    return await context.note(JSON.stringify(summary));
  }
  const text = oneLine(describeOutcome(outcome));
  switch (outcome.kind) {
    case "finished": {
      const counts = countParts(outcome.run.counts, paintErr).map((part) => part.style(part.text));
      const verdict = runVerdict(outcome.run, paintErr);
      const { state } = outcome.run;
      const isPass = state === TestRunState.PASSED && !isEmptyPass(outcome.run);
      const hasVerdict = isPass || (state === TestRunState.FAILED && counts.length > 0);
      const detail = [...(hasVerdict ? [] : [verdict.style(verdict.text.slice(2))]), ...counts].join(", ");
      const sign = hasVerdict ? paintErr.green("✓") : paintErr.yellow("▲");
      return await context.note(`${sign} ${text}: ${detail}`);
    }
    case "cancelled":
      return await context.note(paintErr.yellow(`■ ${text}`));
    case "refused":
    case "unreachable":
      await context.note(paintErr.yellow(`▲ ${text}`));
      return await context.note(`  Bring it there later: toolplane test upload ${report.folder}`);
  }
}
