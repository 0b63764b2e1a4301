/** An event of Node's test runner, with what we read of it. Which fields there are depends on the version of Node. */
export interface NodeTestEvent {
  readonly type: string;
  readonly data: NodeTestData;
}

export interface NodeTestData {
  readonly name: string;
  /** How many tests and suites are around it. */
  readonly nesting: number;
  /** Where it is defined, which may be another file than the one that runs. */
  readonly file?: string;
  readonly line?: number;
  readonly column?: number;
  /** The file that runs, since Node 24. */
  readonly entryFile?: string;
  /** Numbers within one process, since Node 24; 0 for the parent of what is not nested. */
  readonly testId?: number;
  readonly parentId?: number;
  /** Since Node 22. */
  readonly type?: "suite" | "test";
  readonly tags?: readonly string[];
  readonly skip?: string | boolean;
  readonly todo?: string | boolean;
  readonly expectFailure?: unknown;
  readonly details?: {
    readonly duration_ms?: number;
    readonly type?: string;
    readonly passed?: boolean;
    readonly error?: NodeTestError;
  };
  /** Of `test:diagnostic`. */
  readonly message?: string;
  readonly level?: string;
}

/** What failed tests end with. What the test threw is its cause. */
export interface NodeTestError {
  readonly message?: string;
  readonly failureType?: string;
  readonly exitCode?: number;
  readonly signal?: string;
  readonly cause?: unknown;
}
