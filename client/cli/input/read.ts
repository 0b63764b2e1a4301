import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { addAbortSignal } from "node:stream";
import { buffer } from "node:stream/consumers";
import type { Io } from "../io.ts";
import { UsageError } from "../usage-error.ts";

/** Reads a file that an option or argument names. `-` is stdin. */
export async function readBytes(path: string, io: Io): Promise<Uint8Array> {
  // An interruption ends the wait for input that may never come.
  if (path === "-") return await buffer(addAbortSignal(io.signal, io.stdin));
  try {
    return await readFile(path);
  } catch (error) {
    throw new UsageError(`Cannot read ${path}: ${reasonOf(error)}`);
  }
}

export async function readText(path: string, io: Io): Promise<string> {
  return new TextDecoder().decode(await readBytes(path, io));
}

/** The lines of stdin as they come, without empty ones. */
export async function* readLines(io: Io): AsyncGenerator<string> {
  const input = addAbortSignal(io.signal, io.stdin);
  for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.trim() !== "") yield line;
  }
  io.signal.throwIfAborted();
}

function reasonOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  switch (code) {
    case "ENOENT":
      return "there is no such file";
    case "EACCES":
      return "permission denied";
    case "EISDIR":
      return "it is a directory";
    default:
      return error instanceof Error ? error.message : String(error);
  }
}
