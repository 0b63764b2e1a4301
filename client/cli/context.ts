import { DEFAULT_URL } from "../default-url.ts";
import type { NodeToolplane } from "../node.ts";
import { parseDuration } from "./input/duration.ts";
import type { Terminal } from "./terminal.ts";
import { UsageError } from "./usage-error.ts";

/** The options that every command has. */
export interface GlobalOptions {
  readonly url?: string;
  readonly token?: string;
  readonly timeout?: string;
  readonly json?: boolean;
  readonly color: boolean;
}

/** What a command works with: the terminal, and the server that the shared options name. */
export interface Context extends Terminal {
  /** The server's address. */
  readonly url: string;
  /** What `--timeout` said, in milliseconds. */
  readonly timeoutMs: number | undefined;
  /** A client of the server. */
  connect(): Promise<NodeToolplane>;
  /** Closes the connections that `connect` opened. */
  close(): void;
}

/** Without `--timeout`, how long a command that calls no tool may wait for the server, in milliseconds. */
const DEFAULT_TIMEOUT_MS = 30_000;

export function createContext(terminal: Terminal, options: GlobalOptions): Context {
  const { env } = terminal.io;
  const url = parseUrl(options.url ?? (env["TOOLPLANE_URL"] || DEFAULT_URL));
  const token = options.token ?? (env["TOOLPLANE_TOKEN"] || undefined);
  const timeoutMs = options.timeout === undefined ? undefined : parseDuration(options.timeout, "--timeout");
  let client: NodeToolplane | undefined;
  return {
    ...terminal,
    url,
    timeoutMs,
    async connect() {
      const { createToolplane } = await import("../node.ts");
      client ??= createToolplane({ url, token, defaultTimeoutMs: timeoutMs ?? DEFAULT_TIMEOUT_MS });
      return client;
    },
    close: () => client?.close(),
  };
}

/** Accepts `host:port` too. */
function parseUrl(text: string): string {
  const candidate = text.includes("://") ? text : `http://${text}`;
  const url = URL.parse(candidate);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new UsageError(
      `"${text}" is not the address of a server`,
      `Write it as http://host:port, such as ${DEFAULT_URL}.`,
    );
  }
  return candidate.replace(/\/+$/, "");
}
