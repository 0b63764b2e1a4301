import { type DestinationStream, type Logger, type LoggerOptions, pino, stdTimeFunctions } from "pino";
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

/** Writes structured lines with pino; values of authorization-like fields are replaced by `[redacted]`. */
export function createLogger(options: CreateLoggerOptions = {}): Logger {
  const { destination = process.stdout } = options;
  const isTerminal = "isTTY" in destination && destination.isTTY === true;
  const format = options.format ?? (isTerminal ? "pretty" : "json");
  const settings: LoggerOptions = {
    level: options.level ?? "info",
    redact: { paths: credentials.flatMap(atEveryDepth), censor: "[redacted]" },
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    base: options.name === undefined ? null : { name: options.name },
  };
  if (format === "json") {
    return options.destination === undefined ? pino(settings) : pino(settings, options.destination);
  }
  // Synchronous, so that the last lines before an exit are not lost.
  const stream = pretty({
    sync: true,
    translateTime: "SYS:HH:MM:ss.l",
    ignore: "name",
    colorize: isTerminal,
    ...(options.destination === undefined
      ? {}
      : { destination: options.destination as NodeJS.WritableStream }),
  });
  return pino(settings, stream);
}

/** pino's wildcard stands for exactly one level: the line itself, an object in it, and headers within that. */
function atEveryDepth(key: string): string[] {
  const separator = key.startsWith("[") ? "" : ".";
  return [key, `*${separator}${key}`, `*.*${separator}${key}`];
}
