import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { type Agent, AgentSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { parseDocument } from "yaml";
import type { Io } from "../io.ts";
import { UsageError } from "../usage-error.ts";
import { isJsonObject } from "./json-text.ts";
import { readText } from "./read.ts";

/** Reads an agent from YAML, of which JSON is a part. */
export async function readAgent(io: Io, file: string): Promise<Agent> {
  const name = file === "-" ? "Stdin" : file;
  const text = await readText(file, io);
  const document = parseDocument(text, { prettyErrors: true });
  const [error] = document.errors;
  if (error !== undefined) {
    const [{ line, col } = { line: 1, col: 1 }] = error.linePos ?? [];
    throw new UsageError(`${name}:${line}:${col}: ${error.message.split("\n", 1)[0] ?? ""}`);
  }
  try {
    // Without aliases there is no document that is small as text and huge as a value.
    const value: JsonValue = document.toJS({ maxAliasCount: 100 });
    if (!isJsonObject(value)) throw new Error("an agent is an object with a name and a prompt");
    return fromJson(AgentSchema, value);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new UsageError(
      `${name} is no agent: ${why}`,
      'Write at least a name and a prompt, such as {"name": "reviewer", "prompt": "You review changes."}.',
    );
  }
}
