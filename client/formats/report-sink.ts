import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import {
  type Problem,
  ProblemSchema,
  ProblemSeverity,
} from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type {
  FileCoverageSchema,
  TestAttemptSchema,
  TestIdentitySchema,
  TestResultSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { boundedText } from "../runners/bounded-text.ts";
import { createOccurrences } from "../runners/occurrences.ts";
import type { TestEventInit } from "../runners/runner.ts";

/** What a message is made of, without messages that are made already. */
type Fields<Desc extends DescMessage> = Omit<
  Exclude<MessageInitShape<Desc>, MessageShape<Desc>>,
  "$typeName" | "$unknown"
>;
export type IdentityInit = Fields<typeof TestIdentitySchema>;
export type AttemptInit = Fields<typeof TestAttemptSchema>;
export type TestResultInit = Omit<Fields<typeof TestResultSchema>, "test" | "attempts"> & {
  readonly test: IdentityInit;
  readonly attempts: AttemptInit[];
};
export type FileCoverageInit = Fields<typeof FileCoverageSchema>;

/** Warnings beyond these are counted, not told one by one. Errors end the reading, so there are few. */
const MAX_WARNINGS = 200;
/** Coverage is told in pieces of about this many lines, so that an event stays well below a message's size. */
const COVERAGE_LINES = 20_000;
const COVERAGE_FILES = 500;

/** Where readers put what they read. */
export interface ReportSink {
  /** A test's result; its occurrence is filled in, unless the report tells it. */
  result(result: TestResultInit): void;
  coverage(file: FileCoverageInit): void;
  output(text: string, stderr: boolean): void;
  /** Something that the reader of another component made. */
  event(event: TestEventInit): void;
  /** Something is odd or was left out; the results stand. */
  warning(message: string, place: string): void;
  /** Results are missing. */
  error(message: string, place: string): void;
  /** True after an error: reading on makes no sense. */
  readonly broken: boolean;
  readonly failure: Problem | undefined;
  readonly tests: number;
  readonly coveredFiles: number;
  /** The events since the last call. */
  take(): TestEventInit[];
  /** Tells what was held back. */
  end(): void;
}

export function createReportSink(project: string | undefined): ReportSink {
  const occurrenceOf = createOccurrences();
  let events: TestEventInit[] = [];
  let failure: Problem | undefined;
  let tests = 0;
  let coveredFiles = 0;
  let warnings = 0;
  let files: FileCoverageInit[] = [];
  let lines = 0;

  function problem(severity: ProblemSeverity, message: string, place: string): Problem {
    const value = create(ProblemSchema, {
      severity,
      message: boundedText(readableText(message), 4096),
      place: boundedText(readableText(place), 1024),
    });
    events.push({ kind: { case: "problem", value } });
    return value;
  }

  function flushCoverage(): void {
    if (files.length > 0) {
      events.push({ kind: { case: "coverage", value: { files } } });
      files = [];
      lines = 0;
    }
  }

  return {
    get broken() {
      return failure !== undefined;
    },
    get failure() {
      return failure;
    },
    get tests() {
      return tests;
    },
    get coveredFiles() {
      return coveredFiles;
    },
    result(result) {
      const test = { ...result.test, ...(project !== undefined && { project }) };
      const numbered = { ...test, occurrence: test.occurrence ?? occurrenceOf(test) };
      tests++;
      events.push({ kind: { case: "testEnded", value: { ...result, test: numbered } } });
    },
    coverage(file) {
      coveredFiles++;
      files.push(file);
      lines += file.lines?.length ?? 0;
      if (lines >= COVERAGE_LINES || files.length >= COVERAGE_FILES) {
        flushCoverage();
      }
    },
    output(text, stderr) {
      if (text !== "") {
        events.push({ kind: { case: "output", value: { text: boundedText(readableText(text)), stderr } } });
      }
    },
    event(event) {
      switch (event.kind?.case) {
        case "testEnded":
          tests++;
          break;
        case "problem":
          if (event.kind.value.severity === ProblemSeverity.ERROR) {
            failure ??= create(ProblemSchema, event.kind.value);
          }
      }
      events.push(event);
    },
    warning(message, place) {
      warnings++;
      if (warnings <= MAX_WARNINGS) {
        problem(ProblemSeverity.WARNING, message, place);
      }
    },
    error(message, place) {
      const told = problem(ProblemSeverity.ERROR, message, place);
      failure ??= told;
    },
    take() {
      const taken = events;
      events = [];
      return taken;
    },
    end() {
      flushCoverage();
      if (warnings > MAX_WARNINGS) {
        problem(
          ProblemSeverity.WARNING,
          `${warnings - MAX_WARNINGS} further oddities of the report are not told one by one`,
          "",
        );
      }
    },
  };
}

/** Text that every store takes: without NUL and halves of surrogate pairs. */
export function readableText(text: string): string {
  return text.replaceAll("\0", "\uFFFD").toWellFormed();
}
