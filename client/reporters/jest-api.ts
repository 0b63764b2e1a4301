/** What we read of what Jest hands to reporters. Jest is no dependency: these are the shapes of versions 27 to 30. */
export interface JestGlobalConfig {
  readonly rootDir: string;
}

export interface JestTest {
  readonly path: string;
  readonly context: {
    readonly config: { readonly displayName?: { readonly name: string } | string };
  };
}

export interface JestCaseStart {
  readonly ancestorTitles: readonly string[];
  readonly title: string;
}

export interface JestCaseResult extends JestCaseStart {
  readonly status: "passed" | "failed" | "skipped" | "pending" | "todo" | "disabled" | "focused";
  /** Milliseconds. */
  readonly duration?: number | null;
  /** Milliseconds since 1970. */
  readonly startedAt?: number | null;
  /** What was thrown: errors, or objects that were errors in the process of the test. */
  readonly failureDetails?: readonly unknown[];
  /** The same as text, with stacks. */
  readonly failureMessages?: readonly string[];
  /** How often it ran so far. */
  readonly invocations?: number;
  /** Whether it is meant to fail. */
  readonly failing?: boolean;
  readonly location?: { readonly line: number } | null;
}

export interface JestFileResult {
  readonly testResults: readonly JestCaseResult[];
  readonly perfStats: { readonly start: number; readonly end: number };
  /** Why the file could not be loaded or run, or what failed in it outside of tests. */
  readonly testExecError?: unknown;
}

export interface JestRunResult {
  readonly runExecError?: unknown;
}
