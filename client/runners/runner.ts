import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { TestIdentity } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";

/** The tools that run tests and that we know how to drive; `command` is anything that writes JUnit XML. */
export type RunnerKind = "vitest" | "jest" | "node-test" | "pytest" | "go-test" | "command";

/** An event as reporters write it: neither numbered nor of the kinds that only the server writes. */
export type TestEventInit = MessageInitShape<typeof TestEventSchema>;

/** Which tests to run, once test ids and "failed in run" have been looked up. Everything that is set must match. */
export interface RunnerSelection {
  /** Relative to the project's root, checked to stay below it and not to look like an option. */
  readonly files: readonly string[];
  /** A regular expression over the full name; for pytest an expression for `-k`. Empty: any name. */
  readonly namePattern: string;
  readonly tags: readonly string[];
  /** Exactly these tests. Empty: all that match the rest. */
  readonly tests: readonly TestIdentity[];
}

/** What a run is to do. */
export interface RunnerPlan {
  /** How the tool is started, with the arguments that the user or the operator gave. At least one word. */
  readonly command: readonly string[];
  /** The project's root. */
  readonly directory: string;
  /** The whole environment of the tool, and of whatever is asked about it before: never that of this process besides. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly selection: RunnerSelection;
  readonly coverage: boolean;
  /** An empty folder of this run alone, removed after it. */
  readonly workFolder: string;
  /** The file to which reporters inside of the runner append their events; see `spool.ts`. */
  readonly spoolFile: string;
}

/** A selection that the tool cannot express, or a command that is not the tool's. */
export class RunnerError extends Error {
  /** The field of `TestSelection`, or `command`. */
  readonly field: string;

  constructor(field: string, message: string) {
    super(message);
    this.name = "RunnerError";
    this.field = field;
  }
}

/** Makes events of what a tool writes to standard output, where it reports that way. */
export interface OutputParser {
  /** The next line, without its end. */
  line(text: string): readonly TestEventInit[];
  /** What remains to be said once there are no more lines. */
  end(): readonly TestEventInit[];
}

/** A command that is ready to be started. */
export interface PreparedRunner {
  readonly argv: readonly string[];
  /** Added to the environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Undefined: what the tool writes to standard output is output. */
  readonly stdout?: OutputParser | undefined;
  /** Patterns, relative to the root, of JUnit XML files to read when the tool has ended. */
  readonly reports: readonly string[];
  /** Patterns, relative to the root or absolute, of coverage files to read when the tool has ended. */
  readonly coverageFiles: readonly string[];
  /** Exit codes that mean that the tool ran to its end, tests failing or not. */
  readonly verdictCodes: readonly number[];
}

/** How one tool is driven. */
export interface Runner {
  readonly kind: RunnerKind;
  /** Whether a command line starts this tool, such as `npx vitest run`. */
  recognises(command: readonly string[]): boolean;
  /** Throws a `RunnerError` when the selection cannot be expressed. */
  prepare(plan: RunnerPlan): Promise<PreparedRunner>;
}

/** How a runner ended. */
export interface RunnerEnd {
  /** Undefined: it ended by a signal, or never began. */
  readonly exitCode: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
  /** UNSPECIFIED: it ran to its end. */
  readonly reason: TestRunEndReason;
  /** Why it did not, for people; else empty. */
  readonly message: string;
}
