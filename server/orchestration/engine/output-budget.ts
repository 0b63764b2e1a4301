import type { JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { jsonBytes } from "./json-bytes.ts";

/** How large the outputs of the steps of one run may be. Sizes are those as JSON, in bytes. */
export interface OutputBudget {
  /** Returns the size of an output. Throws RESOURCE_EXHAUSTED, reason `OUTPUT_TOO_LARGE`, when it is too large. */
  measure(path: string, output: JsonValue): number;
  /** The same for one that is kept from now on; reason `RUN_OUTPUT_TOO_LARGE` when all of them together are too large. */
  take(path: string, output: JsonValue): number;
}

export function createOutputBudget(options: {
  readonly maxValueBytes: number;
  readonly maxRunBytes: number;
  /** What is kept already. */
  readonly kept: number;
}): OutputBudget {
  const { maxValueBytes, maxRunBytes } = options;
  let { kept } = options;

  function measure(path: string, output: JsonValue): number {
    const bytes = jsonBytes(output);
    if (bytes > maxValueBytes) {
      throw tooLarge({
        reason: "OUTPUT_TOO_LARGE",
        what: `the output of step "${path}" has`,
        bytes,
        limit: maxValueBytes,
        setting: "orchestration.max_value_bytes",
      });
    }
    return bytes;
  }

  return {
    measure,
    take(path, output) {
      const bytes = measure(path, output);
      if (kept + bytes > maxRunBytes) {
        throw tooLarge({
          reason: "RUN_OUTPUT_TOO_LARGE",
          what: `with that of step "${path}", the outputs of the run's steps have`,
          bytes: kept + bytes,
          limit: maxRunBytes,
          setting: "orchestration.max_run_bytes",
        });
      }
      kept += bytes;
      return bytes;
    },
  };
}

function tooLarge(excess: {
  readonly reason: string;
  readonly what: string;
  readonly bytes: number;
  readonly limit: number;
  readonly setting: string;
}): DomainError {
  const { reason, what, bytes, limit, setting } = excess;
  return new DomainError({
    code: Code.ResourceExhausted,
    reason,
    message:
      `${what} ${bytes} bytes as JSON, and ${limit} is the limit. Let steps give back less, such as a reference to what ` +
      `is stored elsewhere, or raise ${setting} in the server's configuration`,
    metadata: { bytes: String(bytes), limit: String(limit), setting },
  });
}
