import type { JsonObject, MessageInitShape } from "@bufbuild/protobuf";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import {
  type HeaderSchema,
  type HealthCheckSpecSchema,
  Protocol,
  type SourceSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { toDuration } from "../../tool-calls.ts";
import type { SourceOptions } from "../commands/registration.ts";
import type { Io } from "../io.ts";
import { UsageError } from "../usage-error.ts";
import { parseDuration } from "./duration.ts";
import { parseJsonObject } from "./json-text.ts";
import { parsePair } from "./pairs.ts";
import { readBytes, readText } from "./read.ts";

export type SourceInit = MessageInitShape<typeof SourceSchema>;

/** Where tools are learnt from: what `--source` says, else what the other options imply. */
export async function readSource(options: SourceOptions, io: Io): Promise<SourceInit> {
  const services = [...(options.only ?? [])];
  const kind = options.source ?? impliedSource(options);
  switch (kind) {
    case "reflection":
      return { kind: { case: "grpcReflection", value: { services } } };
    case "utcp":
      return { kind: { case: "utcpManual", value: { manual: await readManual(options, io) } } };
    case "descriptors": {
      if (options.descriptors === undefined)
        throw new UsageError("--source descriptors needs --descriptors <file>");
      const fileDescriptorSet = parseDescriptors(
        await readBytes(options.descriptors, io),
        options.descriptors,
      );
      return { kind: { case: "descriptors", value: { fileDescriptorSet, services } } };
    }
    default:
      throw new UsageError(`--source: "${kind}" is not one of reflection, utcp and descriptors`);
  }
}

/** An address with a path can only be that of a document: a manual, where nothing else is said. */
export function withImpliedManual<Options extends SourceOptions>(
  endpoint: string,
  options: Options,
): Options {
  const { source, utcpUrl, manual, descriptors } = options;
  if (utcpUrl ?? manual ?? descriptors) return options;
  const url = URL.parse(endpoint);
  const isDocument = url !== null && /^https?:$/.test(url.protocol) && url.pathname !== "/";
  return (source === undefined ? isDocument : source === "utcp")
    ? { ...options, utcpUrl: endpoint }
    : options;
}

function impliedSource(options: SourceOptions): string {
  const kinds = new Set([
    ...(options.utcpUrl !== undefined || options.manual !== undefined ? ["utcp"] : []),
    ...(options.descriptors === undefined ? [] : ["descriptors"]),
  ]);
  if (kinds.size > 1)
    throw new UsageError("A service has one source: a UTCP manual or descriptors, not both");
  return [...kinds][0] ?? "reflection";
}

async function readManual(
  { utcpUrl, manual }: SourceOptions,
  io: Io,
): Promise<{ case: "url"; value: string } | { case: "inline"; value: JsonObject }> {
  if (utcpUrl !== undefined && manual !== undefined) {
    throw new UsageError("A manual comes from --utcp-url or from --manual, not from both");
  }
  if (utcpUrl !== undefined) return { case: "url", value: utcpUrl };
  if (manual === undefined) throw new UsageError("--source utcp needs --utcp-url <url> or --manual <file>");
  return { case: "inline", value: parseJsonObject(await readText(manual, io), manual) };
}

function parseDescriptors(bytes: Uint8Array, path: string) {
  try {
    return fromBinary(FileDescriptorSetSchema, bytes);
  } catch {
    throw new UsageError(
      `${path} is not a file descriptor set`,
      "Write one: buf build -o service.binpb --as-file-descriptor-set",
    );
  }
}

/** The protocol: what `--protocol` says, else the one that fits the source. */
export function parseProtocol(text: string | undefined, source: SourceInit): Protocol {
  switch (text) {
    case undefined:
      return source.kind?.case === "utcpManual" ? Protocol.HTTP : Protocol.GRPC;
    case "grpc":
      return Protocol.GRPC;
    case "grpc-web":
      return Protocol.GRPC_WEB;
    case "connect":
      return Protocol.CONNECT;
    case "http":
      return Protocol.HTTP;
    default:
      throw new UsageError(`--protocol: "${text}" is not one of grpc, grpc-web, connect and http`);
  }
}

/** Reads `name=value` and `name=@secret`. */
export function parseHeader(text: string): MessageInitShape<typeof HeaderSchema> {
  const [name, value] = parsePair(text, "--header");
  return value.startsWith("@")
    ? { name, value: { case: "secret", value: value.slice(1) } }
    : { name, value: { case: "literal", value } };
}

/** Reads `grpc`, `grpc:<service>`, `http:/path`, `tcp` and `none`. */
export function parseHealthCheck(
  text: string | undefined,
  interval: string | undefined,
): MessageInitShape<typeof HealthCheckSpecSchema> | undefined {
  if (text === undefined) {
    if (interval === undefined) return undefined;
    throw new UsageError("--health-interval needs --health, such as --health grpc");
  }
  return {
    kind: healthCheckKind(text),
    ...(interval !== undefined && { interval: toDuration(parseDuration(interval, "--health-interval")) }),
  };
}

function healthCheckKind(text: string): NonNullable<MessageInitShape<typeof HealthCheckSpecSchema>["kind"]> {
  const at = text.indexOf(":");
  const [kind, argument] = at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
  switch (kind) {
    case "grpc":
      return { case: "grpc", value: { service: argument } };
    case "http":
      return { case: "http", value: { path: argument || "/" } };
    case "tcp":
      return { case: "tcp", value: {} };
    case "none":
      return { case: "none", value: {} };
    default:
      throw new UsageError(
        `--health: "${text}" is not one of grpc, grpc:<service>, http:/path, tcp and none`,
      );
  }
}

/** An address as people write it: `:50051` and `50051` mean this machine. */
export function normaliseAddress(text: string): string {
  return /^:?\d+$/.test(text) ? `127.0.0.1:${text.replace(":", "")}` : text;
}
