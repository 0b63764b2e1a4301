import { createHash, type Hash } from "node:crypto";
import type { Dispatch } from "./dispatch.ts";

type Called = Pick<Dispatch, "tool" | "invoker" | "inputs" | "principal">;

/** Calls with the same key ask the same of the same tool, for the same principal. */
export function callKey({ tool, principal, ...call }: Called): string {
  const hash = createHash("sha256");
  for (const text of [principal.id, principal.role, tool.name, tool.environment, tool.version]) {
    hash.update(`${text.length}:${text}`);
  }
  return addInputs(hash, call).digest("base64url");
}

/** The same for calls with the same input, whatever is called and by whom. */
export function inputKey(call: Pick<Called, "invoker" | "inputs">): string {
  return addInputs(createHash("sha256"), call).digest("base64url");
}

function addInputs(hash: Hash, { invoker, inputs }: Pick<Called, "invoker" | "inputs">): Hash {
  for (const input of inputs) {
    const bytes = invoker.fingerprint(input);
    hash.update(`${bytes.byteLength}:`).update(bytes);
  }
  return hash;
}
