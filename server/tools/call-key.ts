import { createHash } from "node:crypto";
import type { Dispatch } from "./dispatch.ts";

type Called = Pick<Dispatch, "tool" | "invoker" | "inputs" | "principal">;

/** Calls with the same key ask the same of the same tool, for the same principal. */
export function callKey({ tool, invoker, inputs, principal }: Called): string {
  const hash = createHash("sha256");
  for (const text of [principal.id, principal.role, tool.name, tool.environment, tool.version]) {
    hash.update(`${text.length}:${text}`);
  }
  for (const input of inputs) {
    const bytes = invoker.fingerprint(input);
    hash.update(`${bytes.byteLength}:`).update(bytes);
  }
  return hash.digest("base64url");
}
