import {
  type DestinationStream,
  type Logger,
  type LoggerOptions,
  destination as openDestination,
  pino,
} from "pino";
import pretty from "pino-pretty";

export type { Logger } from "pino";

export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

export interface CreateLoggerOptions {
  /** The lowest level that is written. Default: `info`. */
  readonly level?: LogLevel;
  /** `json`: one object a line. `pretty`: for people. Default: `pretty` when lines go to a terminal. */
  readonly format?: "json" | "pretty";
  /** The name of the program, in every line. */
  readonly name?: string;
  /** Where lines go. Default: standard output. */
  readonly destination?: DestinationStream;
}

/** Headers and fields that carry credentials; their values never reach a log. */
const credentials = [
  "authorization",
  '["proxy-authorization"]',
  "cookie",
  '["set-cookie"]',
  '["x-api-key"]',
  "apiKey",
  "password",
  "secret",
  "token",
];

/** Loggers, with others that write the same way to the same place but look for no credentials. */
const withoutRedaction = new WeakMap<Logger, Logger>();

/**
 * Writes structured lines with pino; values of authorization-like fields are replaced by `[redacted]`.
 *
 * JSON to standard output is written once for each turn of the event loop: a process that is killed in the middle of one
 * loses the lines of that turn. Warnings and errors are written at once, with all that came before them.
 */
export function createLogger(options: CreateLoggerOptions = {}): Logger {
  const { destination = process.stdout } = options;
  const isTerminal = "isTTY" in destination && destination.isTTY === true;
  const format = options.format ?? (isTerminal ? "pretty" : "json");
  const settings: LoggerOptions = {
    level: options.level ?? "info",
    redact: { paths: credentials.flatMap(atEveryDepth), censor: "[redacted]" },
    timestamp: isoTime,
    formatters: { level: (label) => ({ level: label }) },
    base: options.name === undefined ? null : { name: options.name },
  };
  const stream =
    format === "json" ? (options.destination ?? standardOutput()) : prettyStream(options, isTerminal);
  const logger = pino(settings, stream);
  const { redact, ...plain } = settings;
  withoutRedaction.set(logger, pino({ ...plain, level: "trace" }, stream));
  return logger;
}

/**
 * For lines that are written for every call and whose fields hold no credentials: looking for some takes longer than all
 * the rest. Writes every level, so the logger itself has to be asked whether a level is enabled.
 */
export function unredacted(logger: Logger): Logger {
  return withoutRedaction.get(logger) ?? logger;
}

/** Synchronous, so that the last lines before an exit are not lost. */
function prettyStream({ destination }: CreateLoggerOptions, colorize: boolean): DestinationStream {
  return pretty({
    sync: true,
    translateTime: "SYS:HH:MM:ss.l",
    ignore: "name",
    colorize,
    ...(destination === undefined ? {} : { destination: destination as NodeJS.WritableStream }),
  });
}

/** From this many characters on, lines are written in the middle of a turn of the event loop. */
const MAX_PENDING = 64 * 1024;
/** pino's number for warnings. */
const WARN = 40;

let output: DestinationStream | undefined;

/** One for all loggers, so that their lines stay in order. */
function standardOutput(): DestinationStream {
  output ??= createStandardOutput();
  return output;
}

function createStandardOutput(): DestinationStream {
  const file = openDestination({ dest: 1, sync: true });
  let pending = "";
  function flush(): void {
    if (pending !== "") {
      const lines = pending;
      pending = "";
      file.write(lines);
    }
  }
  process.once("exit", flush);
  const stream = {
    // Makes pino say each line's level before it writes it.
    [Symbol.for("pino.metadata")]: true,
    lastLevel: 0,
    write(line: string): void {
      if (pending === "") {
        setImmediate(flush);
      }
      pending += line;
      if (stream.lastLevel >= WARN || pending.length >= MAX_PENDING) {
        flush();
      }
    },
  };
  return stream;
}

let isoAt = Number.NaN;
let isoText = "";

/** pino's own writes the time out for each line; a busy server has many in one millisecond. */
function isoTime(): string {
  const now = Date.now();
  if (now !== isoAt) {
    isoAt = now;
    isoText = `,"time":"${new Date(now).toISOString()}"`;
  }
  return isoText;
}

/** pino's wildcard stands for exactly one level: the line itself, an object in it, and headers within that. */
function atEveryDepth(key: string): string[] {
  const separator = key.startsWith("[") ? "" : ".";
  return [key, `*${separator}${key}`, `*.*${separator}${key}`];
}
