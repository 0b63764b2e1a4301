/**
 * Where the admin service looks. The parts that are looked at know nothing of it: whoever puts the server together hands
 * in what fits. Times are in milliseconds since 1970, durations in milliseconds, counts since the start.
 */
export interface AdminSources {
  readonly breakers?: BreakerSource;
  readonly ejections?: EjectionSource;
  readonly limits?: LimitSource;
  readonly caches?: CacheSource;
  readonly deduplications?: () => readonly DeduplicationSnapshot[];
  readonly pool?: () => PoolSnapshot;
  readonly requestIds?: () => RequestIdsSnapshot;
  readonly repetition?: () => RepetitionSnapshot;
  readonly batchWriters?: () => readonly BatchWriterSnapshot[];
  readonly streams?: () => readonly MethodStreamsSnapshot[];
  readonly runs?: RunSource;
}

/** Runs of orchestration. */
export interface RunSource {
  /** Those that have not ended, on all replicas together: the database is asked. */
  open(): Promise<OpenRunsSnapshot>;
  /** What this server has done. */
  stats(): RunsSnapshot;
}

export interface OpenRunsSnapshot {
  /** They wait for a worker. */
  readonly queued: number;
  /** A worker has them. */
  readonly running: number;
  /** They wait for an approval or a time. */
  readonly waiting: number;
}

export interface RunsSnapshot {
  /** Runs that this server's worker has now. */
  readonly active: number;
  /** Who watches runs now. */
  readonly watchers: number;
  readonly runs: readonly {
    /** Such as `workflow`. */
    readonly kind: string;
    readonly begun: number;
    /** By state. */
    readonly ended: Readonly<Record<string, number>>;
  }[];
  readonly steps: readonly {
    /** Such as `tool`. */
    readonly kind: string;
    readonly attempts: number;
    /** Of the attempts, those beyond the first. */
    readonly retries: number;
    /** By state. */
    readonly ended: Readonly<Record<string, number>>;
  }[];
  /** Runs that were taken over from a worker that had died. */
  readonly takeovers: number;
  /** How often a run was put aside until an approval or a time. */
  readonly parkings: number;
  /** Calls of tools that models have made. */
  readonly modelToolCalls: number;
  readonly models: readonly ModelSnapshot[];
  readonly appends: AppendsSnapshot;
}

export interface ModelSnapshot {
  readonly model: string;
  readonly inFlight: number;
  /** Requests that have ended, by `ok` or the name of the error's code. */
  readonly turns: ReadonlyMap<string, number>;
  /** How long they took, together. */
  readonly totalMs: number;
  readonly inputTokens: number;
  /** Of the tokens that were read, those from a provider's cache. */
  readonly cachedInputTokens: number;
  readonly outputTokens: number;
  readonly costUsd: number;
}

/** What runs append to the event log. */
export interface AppendsSnapshot {
  /** Appends that are not durable yet. */
  readonly pending: number;
  readonly appends: number;
  readonly events: number;
  readonly failures: number;
  /** Until they were durable, together. */
  readonly totalMs: number;
  readonly maxMs: number;
}

export interface BreakerSource {
  list(): readonly BreakerSnapshot[];
  /** Closes a breaker. Undefined: there is none of that name. */
  reset(name: string): BreakerSnapshot | undefined;
  /** Opens a breaker until it is reset. Undefined: there is none of that name, and there cannot be one. */
  isolate(name: string): BreakerSnapshot | undefined;
}

/** What `Breaker.snapshot()` says, and what the breaker watches over. */
export interface BreakerSnapshot {
  readonly name: string;
  readonly scope: "service" | "instance" | "method";
  readonly service: string;
  readonly environment: string;
  readonly version: string;
  readonly instanceId?: string | undefined;
  readonly tool?: string | undefined;
  readonly state:
    | { readonly kind: "closed" | "half-open" | "isolated"; readonly since: number }
    | { readonly kind: "open"; readonly since: number; readonly retryAt: number };
  readonly consecutiveFailures: number;
  readonly window: { readonly calls: number; readonly failures: number; readonly slowCalls: number };
  readonly rejected: number;
  readonly timesOpened: number;
  readonly lastFailure: { readonly text: string } | undefined;
}

export interface EjectionSource {
  list(): readonly EjectionSnapshot[];
  /** How often an instance was ejected. */
  total(): number;
  /** Lets an instance back in. False: it is not ejected. */
  restore(instanceId: string): boolean;
}

export interface EjectionSnapshot {
  readonly instanceId: string;
  readonly service: string;
  readonly environment: string;
  readonly version: string;
  /** Whose calls are kept away. */
  readonly tool: string;
  /** In words. */
  readonly reason: string;
  readonly ejectedAt: number;
  readonly returnsAt: number;
  /** How often in a row. */
  readonly ejections: number;
}

export interface LimitSource {
  /**
   * The limits with their keys; of a level with a key for each caller or service, the `maxKeys` busiest. 0 is quick: it
   * leaves those levels out.
   */
  list(maxKeys: number): readonly LimitSnapshot[];
  /** By level, of all keys, those that are forgotten included. */
  totals(): readonly LimitTotals[];
}

export interface LimitSnapshot {
  /** `global`, `service`, `caller`, `method`, `concurrency` or `tool`. */
  readonly level: string;
  readonly key: string;
  readonly kind: "rate" | "concurrency" | "adaptive-rate";
  /** Requests in a period, calls at once, or calls a second. */
  readonly limit: number;
  /** Of a rate. */
  readonly periodMs?: number | undefined;
  /** Of a rate. */
  readonly burst?: number | undefined;
  readonly remaining: number;
  readonly allowed: number;
  readonly refused: number;
  /** Calls that wait for their turn now. Default: 0. */
  readonly waiting?: number | undefined;
  /** Calls whose turn came after a wait, and how long they waited. Undefined: nobody waits for this limit. */
  readonly waits?: WaitsSnapshot | undefined;
  /** Where the counters are. Default: `memory`. */
  readonly store?: string | undefined;
}

export interface WaitsSnapshot {
  readonly count: number;
  readonly totalMs: number;
  readonly maxMs: number;
}

export interface LimitTotals {
  readonly level: string;
  readonly allowed: number;
  readonly refused: number;
}

export interface CacheSource {
  list(): readonly CacheSnapshot[];
  /** Drops answers, of one cache or of all, of one tool or of all; returns how many. */
  purge(what: { readonly name: string | undefined; readonly tool: string | undefined }): Promise<number>;
}

export interface CacheSnapshot {
  readonly name: string;
  readonly entries: number;
  readonly bytes: number;
  readonly maxBytes: number;
  readonly memoryHits: number;
  readonly durableHits: number;
  /** Of all hits, those past their time. */
  readonly staleHits: number;
  readonly misses: number;
  readonly evictions: number;
  readonly tampered: number;
  readonly tokensSaved: number;
  readonly costSavedUsd: number;
  readonly durable: boolean;
}

export interface DeduplicationSnapshot {
  readonly name: string;
  readonly inFlight: number;
  readonly maxInFlight: number;
  readonly led: number;
  readonly joined: number;
  readonly overflowed: number;
  readonly cancelled: number;
}

export interface PoolSnapshot {
  readonly connections: readonly PoolConnectionSnapshot[];
  readonly requests: number;
  /** Requests that found an open connection. */
  readonly reused: number;
  readonly opened: number;
  readonly connectFailures: number;
  /** By reason, such as `idle`, `age`, `failures`, `error`, `goaway`, `capacity`. */
  readonly closures: Readonly<Record<string, number>>;
  /** Requests that wait for a connection now. */
  readonly waiting: number;
  /** Requests that had to wait. */
  readonly waits: number;
  /** How long they have waited. */
  readonly meanWaitMs: number;
  readonly maxWaitMs: number;
}

export interface PoolConnectionSnapshot {
  readonly origin: string;
  readonly protocol: "h1" | "h2";
  readonly state: "connecting" | "open" | "draining";
  readonly ageMs: number;
  /** Undefined while it has a request. */
  readonly idleMs: number | undefined;
  readonly activeRequests: number;
  readonly requests: number;
  readonly failures: number;
}

/** What `Batcher.stats()` says. */
export interface BatchWriterSnapshot {
  readonly name: string;
  readonly pending: number;
  readonly maxPending: number;
  readonly written: number;
  readonly batches: number;
  readonly failures: number;
  /** Undefined: nothing was written yet. */
  readonly lastWriteTime: number | undefined;
  /** How long rows have waited until they were written. */
  readonly averageWaitMs: number;
  readonly maxWaitMs: number;
}

/** Attempts that were not made. */
export interface RepetitionSnapshot {
  /** Calls that were not tried again although they had failed, by why. */
  readonly gaveUp: ReadonlyMap<string, number>;
  /** Second attempts that the budget did not have room for. */
  readonly hedgesDenied: number;
}

/** What `Idempotency.stats()` says. */
export interface RequestIdsSnapshot {
  readonly begun: number;
  readonly recorded: number;
  readonly released: number;
  readonly replayed: number;
  readonly waited: number;
  readonly reused: number;
  readonly recordingFailed: number;
  readonly leasesLost: number;
  readonly inFlight: number;
}

/** What `Server.streams()` says. */
export interface MethodStreamsSnapshot {
  /** `package.Service/Method`. */
  readonly method: string;
  readonly open: number;
  /** Of them, those whose reader does not keep up. */
  readonly stalled: number;
  /** The longest that one of them has waited for its reader. */
  readonly longestStallMs: number;
  /** Messages sent. */
  readonly messages: number;
}
