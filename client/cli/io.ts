import type { Readable, Writable } from "node:stream";

/** Where output goes. A terminal also knows its size. */
export type Output = Writable & {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
};

/** Where input comes from. A terminal can also hand over single keys. */
export type Input = Readable & { readonly isTTY?: boolean; setRawMode?(raw: boolean): unknown };

/** Everything that the command line touches outside of itself. */
export interface Io {
  readonly stdin: Input;
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted when the user interrupts the command. */
  readonly signal: AbortSignal;
  /** Interrupts the command, as Ctrl-C does. */
  readonly interrupt: () => void;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** Whether what is written there may be coloured: only for people, and only when they have not said otherwise. */
export function hasColors(output: Output, env: Io["env"], wanted: boolean): boolean {
  // https://no-color.org: set and not empty means no colours.
  if (!wanted || env["NO_COLOR"]) return false;
  const forced = env["FORCE_COLOR"];
  if (forced !== undefined && forced !== "") return forced !== "0" && forced !== "false";
  return output.isTTY === true && env["TERM"] !== "dumb";
}

/** Writes and waits until the reader has kept up, so that a slow pipe holds the stream back instead of filling memory. */
export function write(output: Output, text: string): Promise<void> {
  return new Promise((resolve) => {
    if (output.destroyed || output.write(text)) resolve();
    else {
      const done = () => {
        output.off("drain", done);
        output.off("close", done);
        resolve();
      };
      output.on("drain", done);
      output.on("close", done);
    }
  });
}
