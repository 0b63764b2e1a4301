import type { Problem } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { ReportFormat } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";

/** What bounds the memory that reading takes. */
export interface ReportLimits {
  /** JSON documents are read as a whole; larger ones are refused. Default 64 MiB. */
  readonly maxJsonBytes: number;
  /** How deeply XML elements may be nested. Default 256. */
  readonly maxDepth: number;
  /** How many characters of a text or an attribute of XML are looked at; the rest is left out. Default 256 Ki. */
  readonly maxTextLength: number;
  /** How long a line may be where lines are read, in bytes. Default 8 MiB. */
  readonly maxLineLength: number;
}

export const defaultReportLimits: ReportLimits = {
  maxJsonBytes: 64 * 1024 * 1024,
  maxDepth: 256,
  maxTextLength: 256 * 1024,
  maxLineLength: 8 * 1024 * 1024,
};

export interface ParseReportOptions {
  /** Unset, or UNSPECIFIED: found out from the content and the file name. */
  readonly format?: ReportFormat | undefined;
  readonly fileName?: string | undefined;
  /** The folder that paths in the report stand below, taken off them. Unset: they stay as they are. */
  readonly root?: string | undefined;
  /** What ran the tests. Unset: what the report says or looks like. */
  readonly framework?: string | undefined;
  /** The project of the tests. Unset: left out. */
  readonly project?: string | undefined;
  readonly limits?: Partial<ReportLimits> | undefined;
}

/** What came of reading a report. */
export interface ReportOutcome {
  /** The format that was read. UNSPECIFIED: it could not be found out. */
  readonly format: ReportFormat;
  /** How many results were read. */
  readonly tests: number;
  /** How many files with coverage were read. */
  readonly coveredFiles: number;
  /** Why the report is not complete: the first problem that is an error. Undefined: all of it was read. */
  readonly failure: Problem | undefined;
}

/** Whether anything can be made of a report: it was read to its end, or some of it was. */
export function isReadable(outcome: ReportOutcome): boolean {
  return outcome.failure === undefined || outcome.tests > 0 || outcome.coveredFiles > 0;
}

/** Reads one format. Nothing that it is given makes it throw: what is wrong becomes problems. */
export interface FormatReader {
  /** Reads on. Events come out of the sink. */
  write(bytes: Uint8Array): void;
  /** There is no more. */
  end(): void;
}
