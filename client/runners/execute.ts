import { stat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { type Clock, systemClock } from "@toolplane/framework";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { createEventSink, type EventSink } from "./event-sink.ts";
import { readOutput, readParsed } from "./output.ts";
import { problem, type ReadFile, readSafely, reportReader } from "./report-files.ts";
import type { OutputParser, PreparedRunner, RunnerEnd, TestEventInit } from "./runner.ts";
import { notStarted, type ReportsRead, runnerEnd, type StopReason } from "./runner-end.ts";
import { followSpool } from "./spool.ts";
import { watchTime } from "./time-watch.ts";
import { startWarden, type Warden } from "./warden.ts";
import { filesWritten } from "./written-files.ts";

export interface ExecuteOptions {
  readonly prepared: PreparedRunner;
  /** The project's root. */
  readonly directory: string;
  /** The whole environment of the runner, besides what `prepared` adds. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Stops the runner and all that it started. */
  readonly signal: AbortSignal;
  /** How long it may take. Default: as long as it likes. */
  readonly timeoutMs?: number | undefined;
  /** How long it may neither report nor write anything. Default: as long as it likes. */
  readonly silenceMs?: number | undefined;
  /** How long processes that were asked to end may take to do so. Default 3 s. */
  readonly graceMs?: number | undefined;
  readonly spoolFile: string;
  /**
   * Takes events in the order in which they came; the next ones come when it has resolved, and the runner is not read
   * from meanwhile. What it rejects with stops the runner, and `execute` rejects with it.
   */
  readonly onEvents: (events: TestEventInit[]) => Promise<void>;
  /** Told of what the runner writes for people, as it comes. What a parser makes no output of is not among it. */
  readonly onOutput?: ((text: string, stderr: boolean) => void) | undefined;
  /** Reads files that match `prepared.reports`. Default: `reportReader(directory)`. */
  readonly readReport?: ReadFile | undefined;
  /** Reads files that match `prepared.coverageFiles`. Default: `reportReader(directory)`. */
  readonly readCoverage?: ReadFile | undefined;
  readonly clock?: Clock | undefined;
}

const GRACE_MS = 3_000;
/** How long pipes that something still holds open are read from once the runner is gone. */
const PIPE_MS = 2_000;
/** How much of what was written last is kept for messages. */
const TAIL_LENGTH = 4_096;
/** What an event of a report takes, roughly. */
const EVENT_BYTES = 1_024;

/**
 * Runs a prepared command to its end: tells what it reports, and resolves when it and all that it started are gone, and
 * everything that it left was read.
 */
export async function execute(options: ExecuteOptions): Promise<RunnerEnd> {
  const { prepared, directory, signal, clock = systemClock } = options;
  const missing = await whyNotThere(directory);
  if (missing !== undefined) {
    return notStarted(missing);
  }
  const startedAt = Date.now();
  const warden = startWarden({
    argv: prepared.argv,
    directory,
    env: { ...options.env, ...prepared.env },
    graceMs: options.graceMs ?? GRACE_MS,
  });
  let stopped: StopReason | undefined;
  function stop(reason: StopReason): void {
    stopped ??= reason;
    warden.stop();
  }
  const sink = createEventSink(options.onEvents, () => warden.stop());
  const watch = watchTime({
    clock,
    timeoutMs: options.timeoutMs,
    silenceMs: options.silenceMs,
    // Whoever takes the events is slow, so that the runner is not even read from.
    isExcused: () => sink.busy,
    stop,
  });
  const onAbort = () => stop({ reason: TestRunEndReason.CANCELLED, message: cancelMessage(signal.reason) });
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) {
    onAbort();
  }

  const written = new AbortController();
  const tail: Tail = { stdout: "", stderr: "" };
  const spool = readSpool(options.spoolFile, written.signal, sink, watch.onActivity);
  const streams = readStreams(warden, options, clock, sink, watch.onActivity, tail);
  for (const reading of [spool, streams]) {
    reading.catch(() => warden.stop());
  }
  try {
    const outcome = await warden.outcome;
    watch.close();
    await Promise.race([streams, sleep(PIPE_MS, undefined, { ref: false })]);
    warden.stdout.destroy();
    warden.stderr.destroy();
    written.abort();
    await Promise.all([streams, spool]);
    const read = outcome.kind === "not-started" ? undefined : await readFiles(options, startedAt, sink);
    await sink.end();
    return runnerEnd(outcome, stopped, {
      prepared,
      env: options.env,
      lastOutput: tail.stderr.trim() === "" ? tail.stdout : tail.stderr,
      read,
    });
  } finally {
    watch.close();
    written.abort();
    signal.removeEventListener("abort", onAbort);
  }
}

async function whyNotThere(directory: string): Promise<string | undefined> {
  try {
    return (await stat(directory)).isDirectory() ? undefined : `${directory} is not a folder`;
  } catch (error) {
    return `the folder ${directory} cannot be entered: ${messageOf(error)}`;
  }
}

function cancelMessage(reason: unknown): string {
  return reason instanceof Error && reason.name !== "AbortError" ? reason.message : "the run was cancelled";
}

async function readSpool(
  path: string,
  written: AbortSignal,
  sink: EventSink,
  onActivity: () => void,
): Promise<void> {
  const signal = new AbortController().signal;
  for await (const batch of followSpool(path, { signal, written })) {
    onActivity();
    await sink.push([...batch.events], batch.bytes);
  }
}

/** What a runner wrote last, for messages. */
interface Tail {
  stdout: string;
  stderr: string;
}

async function readStreams(
  { stdout, stderr }: Warden,
  { prepared, onOutput }: ExecuteOptions,
  clock: Clock,
  sink: EventSink,
  onActivity: () => void,
  tail: Tail,
): Promise<void> {
  function onText(name: keyof Tail, text: string): void {
    onActivity();
    tail[name] = (tail[name] + text).slice(-TAIL_LENGTH);
  }
  const target = (name: keyof Tail) => ({
    sink,
    clock,
    stderr: name === "stderr",
    onText(text: string) {
      onText(name, text);
      onOutput?.(text, name === "stderr");
    },
  });
  const parser = prepared.stdout && tellingOutput(prepared.stdout, onOutput);
  await Promise.all([
    parser
      ? readParsed(stdout, parser, { sink, onText: (text) => onText("stdout", text) })
      : readOutput(stdout, target("stdout")),
    readOutput(stderr, target("stderr")),
  ]);
}

/** A parser whose output events are told as output, too. */
function tellingOutput(parser: OutputParser, onOutput: ExecuteOptions["onOutput"]): OutputParser {
  function told(events: readonly TestEventInit[]): readonly TestEventInit[] {
    for (const { kind } of events) {
      if (kind?.case === "output") {
        onOutput?.(kind.value.text ?? "", kind.value.stderr ?? false);
      }
    }
    return events;
  }
  return { line: (text) => told(parser.line(text)), end: () => told(parser.end()) };
}

/** Reads the reports and coverage files that were written since the start. */
async function readFiles(options: ExecuteOptions, startedAt: number, sink: EventSink): Promise<ReportsRead> {
  const { prepared, directory } = options;
  const { readReport = reportReader(directory), readCoverage = reportReader(directory) } = options;
  let failures = false;
  async function readAll(patterns: readonly string[], read: ReadFile): Promise<number> {
    const { files, truncated } = await filesWritten(patterns, directory, startedAt);
    for (const file of files) {
      for await (const event of readSafely(read, file, directory)) {
        failures ||= isFailure(event);
        await sink.push([event], EVENT_BYTES);
      }
    }
    if (truncated) {
      await sink.push(
        [problem("more files match than are read; the rest were left out", patterns.join(", "))],
        0,
      );
    }
    return files.length;
  }
  const reports = await readAll(prepared.reports, readReport);
  await readAll(prepared.coverageFiles, readCoverage);
  return { reports, failures };
}

function isFailure({ kind }: TestEventInit): boolean {
  return (
    kind?.case === "testEnded" &&
    (kind.value.status === TestStatus.FAILED || kind.value.status === TestStatus.ERROR)
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
