import type { JsonObject } from "@bufbuild/protobuf";
import type { Idempotency, Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";

/** A tool as its source describes it. */
export interface DiscoveredTool {
  /** The name within the service, such as `acme.weather.v1.WeatherService.GetForecast`; unique in one discovery. */
  readonly name: string;
  readonly title: string;
  readonly description: string;
  /** The tool's own tags, without those of its service. */
  readonly tags: readonly string[];
  readonly kind: ToolKind;
  readonly streaming: Streaming;
  readonly idempotency: Idempotency;
  /** The key that `Definition` knows the tool by: `package.Service/Method`, or the UTCP tool's name. */
  readonly sourceName: string;
  /** JSON Schema (2020-12) of the arguments, and of the result. */
  readonly inputSchema: JsonObject;
  readonly outputSchema: JsonObject;
  /** How long an answer may be reused; undefined means never. */
  readonly cacheTtlMs?: number | undefined;
  readonly deprecated: boolean;
  /** Why the tool cannot be called; undefined means that it can. */
  readonly problem?: SourceProblem | undefined;
}

/** Something that keeps a source, or one of its tools, from being used. */
export interface SourceProblem {
  /** In UPPER_SNAKE_CASE, such as `UNSUPPORTED_CALL_TEMPLATE`. */
  readonly reason: string;
  /** For people. */
  readonly message: string;
  /** The name within the service of the tool concerned; undefined: the source as a whole. */
  readonly tool?: string | undefined;
}

/**
 * What is needed to call the tools of a service. It is stored with the service under the digest of its content and
 * handed back to the backends that call.
 */
export type Definition =
  | {
      readonly kind: "descriptors" /** A serialized google.protobuf.FileDescriptorSet. */;
      readonly bytes: Uint8Array;
    }
  | { readonly kind: "utcp" /** A UTCP v1 manual as JSON in UTF-8. */; readonly bytes: Uint8Array };

/** What a source offered. Good tools are listed whatever happened to the others. */
export interface Discovery {
  readonly tools: readonly DiscoveredTool[];
  readonly problems: readonly SourceProblem[];
  /** Undefined when nothing callable was learnt. */
  readonly definition: Definition | undefined;
}
