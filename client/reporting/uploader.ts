import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { TestRun, TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type {
  AppendTestEventsResponse,
  CreateTestRunRequestSchema,
  TestRunService,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { type Backoff, backoffDelay, sleep } from "../streams/backoff.ts";
import { isRetryable, pushBackMs } from "../streams/resuming-stream.ts";
import { type EventSource, problem } from "./event-source.ts";

export interface UploaderOptions {
  readonly client: Client<typeof TestRunService>;
  /** The run to make. Without a `requestId` it gets one, so that a lost answer makes no second run. */
  readonly run: MessageInitShape<typeof CreateTestRunRequestSchema>;
  /** What is uploaded. The uploader closes it. */
  readonly source: EventSource;
  /** Tells reporters of one run apart. Default: the only one. */
  readonly reporter?: string | undefined;
  /** Told once, when the run exists. */
  readonly onCreated?: ((run: TestRun) => void) | undefined;
  /** Told once, when somebody cancelled the run: tests should stop. */
  readonly onCancelled?: (() => void) | undefined;
  /** The waits between attempts. Default: at most 5 s. */
  readonly backoff?: Backoff | undefined;
  /** How long one request may take, in milliseconds. Default 15,000. */
  readonly requestTimeoutMs?: number | undefined;
}

/** How the tests ended, as far as their command tells. */
export interface CommandEnd {
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
  readonly reason?: TestRunEndReason | undefined;
  readonly message?: string | undefined;
}

/** What became of an upload. */
export type UploadOutcome =
  /** Everything is on the server. */
  | { readonly kind: "finished"; readonly run: TestRun }
  /** Somebody cancelled the run. */
  | { readonly kind: "cancelled"; readonly runId: string }
  /** The server does not want it, and will not. */
  | { readonly kind: "refused"; readonly runId: string | undefined; readonly error: ConnectError }
  /** The server could not be reached in time. */
  | { readonly kind: "unreachable"; readonly runId: string | undefined; readonly error: ConnectError };

/** Brings events to a server, in order, each exactly once, while tests run. Nothing of it ever throws. */
export interface Uploader {
  /**
   * Brings what remains to the server, ends the run there, and says what became of it. Takes at most `timeoutMs`
   * (default 30,000), or 3,000 when the server has not answered once.
   */
  finish(end: CommandEnd, timeoutMs?: number): Promise<UploadOutcome>;
  /** Gives up at once. */
  close(): void;
}

const FINISH_TIMEOUT_MS = 30_000;
const NEVER_REACHED_TIMEOUT_MS = 3_000;

/** Where an error of the server says at which position to go on. */
const POSITION_GAP = "POSITION_GAP";

export function createUploader(options: UploaderOptions): Uploader {
  const upload = new Upload(options);
  return {
    finish: (end, timeoutMs) => upload.finish(end, timeoutMs),
    close: () => upload.close(),
  };
}

class Upload {
  readonly #options: UploaderOptions;
  readonly #backoff: Backoff;
  readonly #stopping = new AbortController();
  readonly #done: Promise<UploadOutcome | undefined>;
  #runId: string | undefined;
  /** Everything up to here is durable. */
  #acknowledged = 0;
  #heartbeatMs = 20_000;
  /** The most events that are sent at once: small while an event is looked for that the server does not take. */
  #limit = Number.POSITIVE_INFINITY;
  #lastError = new ConnectError("the server did not answer", Code.Unavailable);

  constructor(options: UploaderOptions) {
    this.#options = options;
    this.#backoff = { maxMs: 5_000, ...options.backoff };
    this.#done = this.#run();
  }

  async finish(end: CommandEnd, timeoutMs = FINISH_TIMEOUT_MS): Promise<UploadOutcome> {
    this.#options.source.end();
    const budget = this.#runId === undefined ? Math.min(timeoutMs, NEVER_REACHED_TIMEOUT_MS) : timeoutMs;
    const timer = setTimeout(() => this.#stopping.abort(), budget);
    try {
      return (await this.#done) ?? (await this.#end(end));
    } catch (reason) {
      return this.#failed(reason);
    } finally {
      clearTimeout(timer);
      this.close();
    }
  }

  close(): void {
    this.#stopping.abort();
    this.#options.source.close();
  }

  /** Undefined: all events are durable. */
  async #run(): Promise<UploadOutcome | undefined> {
    try {
      await this.#create();
      return await this.#uploadAll();
    } catch (reason) {
      return this.#failed(reason);
    } finally {
      this.#options.source.close();
    }
  }

  async #create(): Promise<void> {
    const { client, run, onCreated } = this.#options;
    const request = { ...run, requestId: run.requestId || randomUUID() };
    const response = await this.#untilItWorks((call) => client.createTestRun(request, call));
    if (response.run === undefined)
      throw new ConnectError("the server named no run", Code.FailedPrecondition);
    this.#runId = response.run.id;
    const silence = response.silenceTimeout;
    if (silence !== undefined) {
      this.#heartbeatMs = (Number(silence.seconds) * 1000 + silence.nanos / 1e6) / 3;
    }
    onCreated?.(response.run);
  }

  async #uploadAll(): Promise<UploadOutcome | undefined> {
    const { source, onCancelled } = this.#options;
    for (;;) {
      const events = await this.#next();
      if (this.#stopping.signal.aborted) throw this.#lastError;
      if (events === undefined) return undefined;
      const response = await this.#append(events);
      if (response === undefined) continue;
      if (response.cancelled) {
        onCancelled?.();
        return { kind: "cancelled", runId: this.#runId ?? "" };
      }
      this.#acknowledged = Number(response.acknowledgedPosition);
      source.release(this.#acknowledged);
    }
  }

  /** What is to be sent next; nothing to say that this reporter lives; undefined when all was sent. */
  async #next(): Promise<readonly TestEvent[] | undefined> {
    const reading = this.#options.source.read(this.#acknowledged);
    let events: readonly TestEvent[] | undefined | "silence" = await this.#withinHeartbeat(reading);
    while (events === "silence") {
      const response = await this.#append([]);
      if (response?.cancelled === true) return [];
      events = await this.#withinHeartbeat(reading);
    }
    return events?.slice(0, this.#limit);
  }

  async #withinHeartbeat<T>(reading: Promise<T>): Promise<T | "silence"> {
    let timer: NodeJS.Timeout | undefined;
    const silence = new Promise<"silence">((resolve) => {
      timer = setTimeout(resolve, this.#heartbeatMs, "silence");
      // Waiting alone keeps no process alive.
      timer.unref();
    });
    try {
      return await Promise.race([reading, silence]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Undefined: the events have to be read again, from another position or fewer of them. */
  async #append(events: readonly TestEvent[]): Promise<AppendTestEventsResponse | undefined> {
    const { client, reporter = "" } = this.#options;
    const request = {
      runId: this.#runId ?? "",
      reporter,
      firstPosition: BigInt(this.#acknowledged + 1),
      events: [...events],
    };
    try {
      const response = await this.#untilItWorks((call) => client.appendTestEvents(request, call));
      if (events.length > 0) this.#limit = Math.min(this.#limit * 2, Number.MAX_SAFE_INTEGER);
      return response;
    } catch (reason) {
      const error = ConnectError.from(reason);
      const position = gapOf(error);
      if (position !== undefined) {
        this.#acknowledged = position;
        return undefined;
      }
      if (error.code !== Code.InvalidArgument || events.length === 0) throw error;
      this.#isolate(events, error);
      return undefined;
    }
  }

  /** Finds the event that the server does not take by sending ever fewer, and puts a problem in its place. */
  #isolate(events: readonly TestEvent[], error: ConnectError): void {
    const [event] = events;
    if (events.length > 1 || event === undefined) {
      this.#limit = Math.ceil(events.length / 2);
      return;
    }
    // A problem that is not taken either would be replaced for ever.
    if (event.kind.case === "problem") throw error;
    const what = event.kind.case ?? "unknown";
    this.#options.source.replace(
      this.#acknowledged + 1,
      problem(`the server did not take an event (${what}): ${error.rawMessage}`),
    );
  }

  async #end({ exitCode, signal, reason, message }: CommandEnd): Promise<UploadOutcome> {
    const { client, reporter = "" } = this.#options;
    const request = {
      runId: this.#runId ?? "",
      reporter,
      lastPosition: BigInt(this.#acknowledged),
      ...(exitCode !== undefined && { exitCode }),
      ...(signal !== undefined && { signal }),
      ...(reason !== undefined && { reason }),
      ...(message !== undefined && { message: message.slice(0, 65_536) }),
    };
    const { run } = await this.#untilItWorks((call) => client.finishTestRun(request, call));
    if (run === undefined) throw new ConnectError("the server named no run", Code.FailedPrecondition);
    return { kind: "finished", run };
  }

  /** Repeats a request until it is answered. Throws what no repetition can heal, and when there is no more time. */
  async #untilItWorks<T>(
    request: (call: { readonly signal: AbortSignal; readonly timeoutMs: number }) => Promise<T>,
  ): Promise<T> {
    const { signal } = this.#stopping;
    const wait = this.#backoff.sleep ?? sleep;
    const timeoutMs = this.#options.requestTimeoutMs ?? 15_000;
    for (let attempt = 1; ; attempt += 1) {
      if (signal.aborted) throw this.#lastError;
      try {
        return await request({ signal, timeoutMs });
      } catch (reason) {
        const error = ConnectError.from(reason);
        if (signal.aborted) throw this.#lastError;
        if (!isRetryable(error)) throw error;
        this.#lastError = error;
        await wait(Math.max(backoffDelay(attempt, this.#backoff), pushBackMs(error)), signal);
      }
    }
  }

  #failed(reason: unknown): UploadOutcome {
    const error = ConnectError.from(reason);
    const kind = error === this.#lastError ? "unreachable" : "refused";
    return { kind, runId: this.#runId, error };
  }
}

/** The position after which to go on, where the server says that events are missing. */
function gapOf(error: ConnectError): number | undefined {
  if (error.code !== Code.OutOfRange) return undefined;
  const info = error.findDetails(ErrorInfoSchema).find(({ reason }) => reason === POSITION_GAP);
  const position = Number(info?.metadata["acknowledged_position"]);
  return Number.isSafeInteger(position) ? position : undefined;
}
