import { fromBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { type ConnectionPool, domainErrorOf } from "../../pool/index.ts";
import type { Target } from "../../pool/target.ts";
import type { Discovery, SourceProblem } from "../source.ts";
import { isBuiltIn, MAX_FILES, missingSymbols } from "./descriptor-files.ts";
import { chooseServices, discoverServices } from "./descriptors.ts";
import { openReflection, type Question, type ReflectionStream } from "./reflection-stream.ts";

export interface ReflectionOptions {
  /** Fully qualified names of the only services to offer. Empty: all but health and reflection. */
  readonly services: readonly string[];
  readonly target: Target;
  readonly pool: ConnectionPool;
  /** The deadline. Its reason is a ConnectError. */
  readonly signal: AbortSignal;
}

/** Services that a server may list. */
const MAX_SERVICES = 2_000;
/** Bytes of descriptors that are read at most: 32 MiB. */
const MAX_BYTES = 32 * 1024 * 1024;

/**
 * Asks a server through gRPC server reflection which services it has. v1 is tried first, then v1alpha, each with one
 * stream over one pooled connection.
 *
 * A service that cannot be described becomes a problem while the others stay usable. A server that does not answer at
 * all is an error: UNREACHABLE, REFLECTION_UNSUPPORTED or REFLECTION_FAILED.
 */
export async function discoverByReflection(options: ReflectionOptions): Promise<Discovery> {
  const { target, signal } = options;
  try {
    return await discover("v1", options);
  } catch (error) {
    if (!isUnimplemented(error) || signal.aborted) {
      throw explain(error, target, signal);
    }
  }
  try {
    return await discover("v1alpha", options);
  } catch (error) {
    throw explain(error, target, signal);
  }
}

async function discover(
  version: "v1" | "v1alpha",
  { services, target, pool, signal }: ReflectionOptions,
): Promise<Discovery> {
  const stream = openReflection(pool, target, version, signal);
  try {
    const offered = await listServices(stream);
    const chosen = chooseServices(offered, services);
    const collector = new Collector(stream);
    await collector.collect(chosen.filter((name) => offered.includes(name)));
    const failures = new Map(collector.failures);
    for (const name of chosen) {
      if (!offered.includes(name)) {
        failures.set(name, {
          reason: "SERVICE_NOT_FOUND",
          message: `${target.endpoint} does not offer a service ${name}; it offers ${offered.join(", ") || "none"}`,
        });
      }
    }
    const known = chosen.filter((name) => offered.includes(name) || failures.has(name));
    return discoverServices(collector.files.values(), known, failures);
  } finally {
    stream.close();
  }
}

async function listServices(stream: ReflectionStream): Promise<string[]> {
  const [answer] = await stream.ask([{ case: "listServices", value: "*" }]);
  if (answer?.case === "errorResponse") {
    throw new ConnectError(answer.value.errorMessage, answer.value.errorCode);
  }
  if (answer?.case !== "listServicesResponse") {
    throw new ConnectError("the server did not answer with a list of services", Code.Internal);
  }
  const names = answer.value.service.map(({ name }) => name);
  if (names.length > MAX_SERVICES) {
    throw tooLarge(`it lists ${names.length} services, at most ${MAX_SERVICES} are read`);
  }
  return names;
}

/** Gathers the files that describe services, with everything that they need. */
class Collector {
  readonly files = new Map<string, FileDescriptorProto>();
  /** Services that the server could not describe. */
  readonly failures = new Map<string, SourceProblem>();
  readonly #stream: ReflectionStream;
  readonly #asked = new Set<string>();
  #bytes = 0;

  constructor(stream: ReflectionStream) {
    this.#stream = stream;
  }

  async collect(services: readonly string[]): Promise<void> {
    const errors = await this.#fetch("fileContainingSymbol", services);
    for (const [service, message] of errors) {
      this.failures.set(service, {
        reason: "REFLECTION_FAILED",
        message: `The server could not describe ${service}: ${message}`,
      });
    }
    for (;;) {
      const imports = [...this.files.values()]
        .flatMap(({ dependency }) => dependency)
        .filter(
          (name) => !this.files.has(name) && !isBuiltIn(name) && !this.#asked.has(`fileByFilename ${name}`),
        );
      // Some servers know files by other names than they are imported by: then the types used are asked for.
      const symbols =
        imports.length > 0
          ? []
          : [...missingSymbols(this.files.values())].filter(
              (name) => !this.#asked.has(`fileContainingSymbol ${name}`),
            );
      if (imports.length === 0 && symbols.length === 0) {
        return;
      }
      // What is not found here may not be needed. If it is, linking says who misses what.
      await this.#fetch("fileByFilename", [...new Set(imports)]);
      await this.#fetch("fileContainingSymbol", symbols);
    }
  }

  /** Asks for files. Returns what the server, or what it sent, had wrong, by name. */
  async #fetch(
    by: "fileByFilename" | "fileContainingSymbol",
    names: readonly string[],
  ): Promise<Map<string, string>> {
    const errors = new Map<string, string>();
    if (names.length === 0) {
      return errors;
    }
    for (const name of names) {
      this.#asked.add(`${by} ${name}`);
    }
    if (this.#asked.size > 4 * MAX_FILES) {
      throw tooLarge(`its files name more than ${4 * MAX_FILES} others`);
    }
    const answers = await this.#stream.ask(names.map((value): Question => ({ case: by, value })));
    for (const [index, answer] of answers.entries()) {
      const name = names[index] ?? "";
      switch (answer.case) {
        case "fileDescriptorResponse":
          try {
            for (const bytes of answer.value.fileDescriptorProto) {
              this.#add(bytes);
            }
          } catch (error) {
            if (error instanceof DomainError) {
              throw error;
            }
            errors.set(name, `it sent a descriptor that cannot be read (${messageOf(error)})`);
          }
          break;
        case "errorResponse":
          errors.set(name, answer.value.errorMessage || `error ${answer.value.errorCode}`);
          break;
        default:
          errors.set(name, "it answered with something else");
      }
    }
    return errors;
  }

  #add(bytes: Uint8Array): void {
    this.#bytes += bytes.byteLength;
    if (this.#bytes > MAX_BYTES) {
      throw tooLarge(`its descriptors have more than ${MAX_BYTES} bytes`);
    }
    const file = fromBinary(FileDescriptorProtoSchema, bytes);
    if (!this.files.has(file.name)) {
      this.files.set(file.name, file);
    }
    if (this.files.size > MAX_FILES) {
      throw tooLarge(`it has more than ${MAX_FILES} files`);
    }
  }
}

function isUnimplemented(error: unknown): boolean {
  return error instanceof ConnectError && error.code === Code.Unimplemented;
}

function tooLarge(what: string): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "REFLECTION_FAILED",
    message: `The server describes too much: ${what}`,
  });
}

/** What went wrong, and what to do about it. */
function explain(error: unknown, { endpoint }: Target, signal: AbortSignal): DomainError {
  const known = domainErrorOf(error);
  if (known && known.init.reason !== "HTTP2_REQUIRED") {
    return known;
  }
  if (known) {
    return new DomainError({
      ...known.init,
      reason: "REFLECTION_UNSUPPORTED",
      message: `${endpoint} speaks only HTTP/1.1, and gRPC server reflection needs HTTP/2: register the service with descriptors`,
    });
  }
  if (isUnimplemented(error)) {
    return new DomainError({
      code: Code.FailedPrecondition,
      reason: "REFLECTION_UNSUPPORTED",
      message: `${endpoint} has no gRPC server reflection: enable it there, or register the service with descriptors`,
      metadata: { endpoint },
      cause: error,
    });
  }
  const cause = ConnectError.from(signal.aborted ? signal.reason : error, Code.Unavailable);
  return new DomainError({
    code: cause.code,
    reason: "REFLECTION_FAILED",
    message:
      cause.code === Code.DeadlineExceeded
        ? `${endpoint} did not answer gRPC server reflection in time`
        : `gRPC server reflection of ${endpoint} failed: ${cause.rawMessage}`,
    metadata: { endpoint },
    cause,
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
