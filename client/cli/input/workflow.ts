import type { Io } from "../io.ts";
import { readText } from "./read.ts";

/** A workflow that an argument names: a kept one, or the text of a file. */
export type WorkflowChoice =
  | { readonly kind: "kept"; readonly name: string }
  | { readonly kind: "file"; readonly path: string; readonly text: string };

/** What can be the name of a workflow names a kept one; anything else, such as `./nightly.yaml` or `-`, a file. */
export async function chooseWorkflow(word: string, io: Io): Promise<WorkflowChoice> {
  if (/^[a-zA-Z0-9][a-zA-Z0-9_-]{0,127}$/.test(word)) return { kind: "kept", name: word };
  return { kind: "file", path: word, text: await readText(word, io) };
}
