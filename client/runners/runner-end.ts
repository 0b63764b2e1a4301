import { constants } from "node:os";
import { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { PreparedRunner, RunnerEnd } from "./runner.ts";
import type { WardenOutcome } from "./warden.ts";

/** Why a runner was stopped. */
export interface StopReason {
  readonly reason: TestRunEndReason;
  /** The same for people. */
  readonly message: string;
}

/** What else decides over how a run ended. */
export interface EndFacts {
  readonly prepared: PreparedRunner;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** What the runner wrote last, to standard error if it wrote there at all. */
  readonly lastOutput: string;
  /** Undefined: it was not started. */
  readonly read: ReportsRead | undefined;
}

/** What a runner left in reports. */
export interface ReportsRead {
  /** How many there were. */
  readonly reports: number;
  /** Whether a test failed, as they say. */
  readonly failures: boolean;
}

const TAIL_LINES = 20;
/** The file, or the folder, of a program cannot be run. */
const REFUSED = new Set(["EACCES", "EPERM"]);

export function notStarted(message: string): RunnerEnd {
  return { exitCode: undefined, signal: undefined, reason: TestRunEndReason.NOT_STARTED, message };
}

/** Says how a runner ended. Why it was stopped outranks what it did thereupon. */
export function runnerEnd(
  outcome: WardenOutcome,
  stopped: StopReason | undefined,
  facts: EndFacts,
): RunnerEnd {
  switch (outcome.kind) {
    case "not-started":
      return notStarted(whyNotStarted(outcome.code, outcome.message, facts));
    case "lost":
      return {
        exitCode: undefined,
        signal: undefined,
        ...(stopped ?? {
          reason: TestRunEndReason.CRASHED,
          message: "the process that watches over the runner was killed, and the runner after it",
        }),
      };
    case "ended": {
      const { exitCode, signal } = outcome;
      return { exitCode, signal, ...(stopped ?? verdict(exitCode, signal, facts)) };
    }
  }
}

function whyNotStarted(code: string, message: string, { prepared, env }: EndFacts): string {
  const [program = ""] = prepared.argv;
  if (code === "ENOENT") {
    return program.includes("/")
      ? `${program} does not exist; install the project's dependencies, or correct the command`
      : `${program} was not found in PATH, which is ${env["PATH"] || "empty"}; install it, or correct the command`;
  }
  if (REFUSED.has(code)) {
    return `${program} may not be run (${code}); make it executable for this user, or correct the command`;
  }
  return `${program} could not be started: ${message}`;
}

function verdict(
  exitCode: number | undefined,
  signal: NodeJS.Signals | undefined,
  facts: EndFacts,
): StopReason {
  const { prepared, lastOutput, read } = facts;
  if (signal !== undefined) {
    return crashed(`the runner was ended by ${signal}`, lastOutput);
  }
  // Commands have codes of their own for failed tests, such as 2 of make; that some failed is told by their reports.
  if (exitCode === undefined || !(prepared.verdictCodes.includes(exitCode) || read?.failures)) {
    // Shells and package managers say in this way that a signal ended what they have started.
    const inner = exitCode === undefined ? undefined : signalName(exitCode - 128);
    return inner
      ? crashed(`the runner ended with code ${exitCode}, which stands for ${inner}`, lastOutput)
      : {
          reason: TestRunEndReason.RUNNER_ERROR,
          message: withTail(`the runner ended with code ${exitCode}`, lastOutput),
        };
  }
  if (read?.reports === 0 && prepared.reports.length > 0) {
    const message = `the runner wrote no report: no file that matches ${prepared.reports.join(", ")} is newer than its start`;
    return { reason: TestRunEndReason.RUNNER_ERROR, message: withTail(message, lastOutput) };
  }
  return { reason: TestRunEndReason.UNSPECIFIED, message: "" };
}

function crashed(message: string, lastOutput: string): StopReason {
  return { reason: TestRunEndReason.CRASHED, message: withTail(message, lastOutput) };
}

function signalName(number: number): string | undefined {
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
}

function withTail(message: string, output: string): string {
  const tail = output.trim().split("\n").slice(-TAIL_LINES).join("\n");
  return tail === "" ? message : `${message}; it wrote last:\n${tail}`;
}
