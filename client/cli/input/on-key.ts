import type { Input } from "../io.ts";

/** Hands over single keys as they are pressed, where stdin is a terminal. Returns what gives the keys back. */
export function onKey(stdin: Input, handle: (key: string) => void): () => void {
  if (stdin.isTTY !== true) return () => {};
  const listener = (data: Uint8Array) => handle(data.toString());
  stdin.setRawMode?.(true);
  stdin.on("data", listener);
  stdin.resume();
  return () => {
    stdin.off("data", listener);
    stdin.setRawMode?.(false);
    stdin.pause();
  };
}
