import {
  clone,
  type DescMethod,
  fromBinary,
  getOption,
  hasOption,
  type JsonObject,
} from "@bufbuild/protobuf";
import {
  type Duration,
  type FileDescriptorProto,
  type FileDescriptorSet,
  FileDescriptorSetSchema,
  MethodOptions_IdempotencyLevel,
} from "@bufbuild/protobuf/wkt";
import { invalidArgument } from "@toolplane/framework";
import {
  type ToolOptions,
  tool as toolOption,
} from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { Idempotency, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";

import { argumentsSchema, leadingComment, messageSchema } from "../../schema/index.ts";
import type { DiscoveredTool, Discovery, SourceProblem } from "../source.ts";
import { linkFiles, MAX_FILES, serializeFiles } from "./descriptor-files.ts";
import { streamingOf } from "./streaming.ts";

export interface DescriptorSourceOptions {
  /** The descriptors with all their imports. */
  readonly source: { readonly bytes: Uint8Array } | { readonly fileDescriptorSet: FileDescriptorSet };
  /** Fully qualified names of the only services to offer. Empty: all but health and reflection. */
  readonly services: readonly string[];
}

/**
 * Tools are the methods of the services that a descriptor set describes. Throws `invalidArgument` for
 * `service.source.descriptors.file_descriptor_set` when there is nothing to read.
 */
export function discoverFromDescriptors({ source, services }: DescriptorSourceOptions): Discovery {
  const set =
    "bytes" in source ? readSet(source.bytes) : clone(FileDescriptorSetSchema, source.fileDescriptorSet);
  if (set.file.length === 0 || set.file.length > MAX_FILES) {
    throw refuse(`${set.file.length} files: there must be 1 to ${MAX_FILES}`);
  }
  const offered = set.file.flatMap((file) =>
    file.service.map(({ name }) => (file.package ? `${file.package}.${name}` : name)),
  );
  return discoverServices(set.file, chooseServices(offered, services));
}

/** The services to offer: the ones asked for, else all that a server has except health and reflection. */
export function chooseServices(offered: readonly string[], requested: readonly string[]): string[] {
  const chosen =
    requested.length > 0 ? requested : offered.filter((name) => !/^grpc\.(health|reflection)\./.test(name));
  return [...new Set(chosen)].sort();
}

/**
 * Makes tools of the methods of `services`. What is wrong with one service is a problem of its own tools; `failures` are
 * services that are known not to be usable, with the reason. The given files are changed.
 */
export function discoverServices(
  files: Iterable<FileDescriptorProto>,
  services: readonly string[],
  failures: ReadonlyMap<string, SourceProblem> = new Map(),
): Discovery {
  const given = [...files];
  const { registry, files: linked, broken } = linkFiles(given);
  const tools = new Map<string, DiscoveredTool>();
  const problems: SourceProblem[] = [];
  let callable = false;

  for (const name of services) {
    const service = registry.getService(name);
    if (service) {
      callable = true;
      for (const method of service.methods) {
        addMethod(method, tools, problems);
      }
      continue;
    }
    const file = given.find(({ package: scope, service: list }) =>
      list.some((candidate) => (scope ? `${scope}.${candidate.name}` : candidate.name) === name),
    );
    const reason = file && broken.get(file.name);
    if (file && reason !== undefined) {
      for (const tool of unusable(file, name, reason)) {
        tools.set(tool.name, tool);
        if (tool.problem) {
          problems.push(tool.problem);
        }
      }
    } else {
      problems.push(
        failures.get(name) ?? {
          reason: "SERVICE_NOT_FOUND",
          message: `The source does not describe a service ${name}`,
        },
      );
    }
  }
  return {
    tools: [...tools.values()],
    problems,
    definition: callable ? { kind: "descriptors", bytes: serializeFiles(linked) } : undefined,
  };
}

function addMethod(method: DescMethod, tools: Map<string, DiscoveredTool>, problems: SourceProblem[]): void {
  const fullName = `${method.parent.typeName}.${method.name}`;
  let options: ToolOptions | undefined;
  try {
    options = hasOption(method, toolOption) ? getOption(method, toolOption) : undefined;
  } catch (error) {
    problems.push({
      reason: "INVALID_ANNOTATION",
      message: `The tool annotation of ${fullName} cannot be read: ${messageOf(error)}`,
      tool: fullName,
    });
  }
  if (options?.hidden) {
    return;
  }
  const name = chooseName(options?.name, fullName, tools, problems);
  let problem: SourceProblem | undefined;
  const schemaOf = (
    message: DescMethod["input"],
    describe: (message: DescMethod["input"]) => JsonObject,
  ): JsonObject => {
    try {
      return describe(message);
    } catch (error) {
      problem = {
        reason: "UNSUPPORTED_TYPE",
        message: `${message.typeName} cannot be described: ${messageOf(error)}`,
        tool: name,
      };
      return { type: "object" };
    }
  };
  const inputSchema = schemaOf(method.input, argumentsSchema);
  const outputSchema = schemaOf(method.output, messageSchema);
  if (problem) {
    problems.push(problem);
  }
  tools.set(name, {
    name,
    title: options?.title || splitWords(method.name),
    description: options?.description || leadingComment(method) || "",
    tags: options ? [...new Set(options.tags)] : [],
    kind: ToolKind.RPC,
    streaming: streamingOf(method.methodKind),
    idempotency: idempotencyOf(method.idempotency),
    sourceName: `${method.parent.typeName}/${method.name}`,
    inputSchema,
    outputSchema,
    cacheTtlMs: options?.cacheTtl && toMilliseconds(options.cacheTtl),
    deprecated: method.deprecated || method.parent.deprecated || method.parent.file.deprecated,
    problem,
  });
}

/** The annotated name where it can be used, else the full one, which is always unique. */
function chooseName(
  annotated: string | undefined,
  fullName: string,
  tools: ReadonlyMap<string, DiscoveredTool>,
  problems: SourceProblem[],
): string {
  if (!annotated || annotated === fullName) {
    return fullName;
  }
  if (!/^[a-zA-Z0-9_.-]{1,512}$/.test(annotated)) {
    problems.push({
      reason: "INVALID_TOOL_NAME",
      message: `${fullName} asks for the name ${JSON.stringify(annotated.slice(0, 100))}: only letters, digits, "_", "." and "-" are allowed`,
      tool: fullName,
    });
    return fullName;
  }
  if (tools.has(annotated)) {
    problems.push({
      reason: "DUPLICATE_TOOL_NAME",
      message: `${fullName} asks for the name ${annotated}, which another tool has`,
      tool: fullName,
    });
    return fullName;
  }
  return annotated;
}

/** The methods of a service whose file does not link, for the listing. */
function unusable(file: FileDescriptorProto, serviceName: string, reason: string): DiscoveredTool[] {
  const service = file.service.find(
    ({ name }) => (file.package ? `${file.package}.${name}` : name) === serviceName,
  );
  return (service?.method ?? []).map((method): DiscoveredTool => {
    const name = `${serviceName}.${method.name}`;
    return {
      name,
      title: splitWords(method.name),
      description: "",
      tags: [],
      kind: ToolKind.RPC,
      streaming: streamingOf(
        method.clientStreaming
          ? method.serverStreaming
            ? "bidi_streaming"
            : "client_streaming"
          : method.serverStreaming
            ? "server_streaming"
            : "unary",
      ),
      idempotency: idempotencyOf(method.options?.idempotencyLevel),
      sourceName: `${serviceName}/${method.name}`,
      inputSchema: { type: "object" },
      outputSchema: { type: "object" },
      deprecated: false,
      problem: {
        reason: "BROKEN_DESCRIPTOR",
        message: `The descriptor ${file.name} cannot be used: ${reason}`,
        tool: name,
      },
    };
  });
}

function idempotencyOf(level: MethodOptions_IdempotencyLevel | undefined): Idempotency {
  switch (level) {
    case MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS:
      return Idempotency.NO_SIDE_EFFECTS;
    case MethodOptions_IdempotencyLevel.IDEMPOTENT:
      return Idempotency.IDEMPOTENT;
    default:
      return Idempotency.UNSPECIFIED;
  }
}

/** `GetForecast` becomes `Get forecast`, `ListHTTPRoutes` becomes `List HTTP routes`. */
export function splitWords(name: string): string {
  const words = name.match(/[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+/g) ?? [name];
  return words
    .map((word, index) => (index === 0 || /^[A-Z]{2,}$/.test(word) ? word : word.toLowerCase()))
    .join(" ");
}

function toMilliseconds({ seconds, nanos }: Duration): number | undefined {
  const milliseconds = Number(seconds) * 1000 + Math.round(nanos / 1e6);
  return milliseconds > 0 ? milliseconds : undefined;
}

function readSet(bytes: Uint8Array): FileDescriptorSet {
  try {
    return fromBinary(FileDescriptorSetSchema, bytes);
  } catch (error) {
    throw refuse(`it cannot be read: ${messageOf(error)}`, error);
  }
}

function refuse(description: string, cause?: unknown): Error {
  return invalidArgument(
    [
      {
        field: "service.source.descriptors.file_descriptor_set",
        reason: "INVALID_DESCRIPTORS",
        description,
      },
    ],
    cause,
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
