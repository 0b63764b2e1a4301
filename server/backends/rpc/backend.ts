import { createHash } from "node:crypto";
import type { DescMethod, FileRegistry } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError, notFound } from "@toolplane/framework";
import { createByteLru } from "@toolplane/framework/policies";
import type { ConnectionPool } from "../../pool/index.ts";
import type { Backend, Invoker } from "../invocation.ts";
import type { Definition } from "../source.ts";
import { readFiles } from "./descriptor-files.ts";
import { createRpcInvoker } from "./invoker.ts";

export interface RpcBackendOptions {
  readonly pool: ConnectionPool;
  /** The largest single result in bytes. */
  readonly maxResultBytes: number;
}

/** Serialized descriptors whose registries are kept: 64 MiB. A registry takes several times as much. */
const CACHED_BYTES = 64 * 1024 * 1024;

/** What is made of one definition. */
interface Loaded {
  readonly registry: FileRegistry;
  readonly invokers: Map<string, Invoker>;
}

/** Calls Protobuf methods over gRPC, gRPC-Web and Connect, knowing nothing of them but their descriptors. */
export function createRpcBackend({ pool, maxResultBytes }: RpcBackendOptions): Backend {
  // The same bytes object is the same definition; equal bytes that were read anew are found by their digest.
  const byObject = new WeakMap<Uint8Array, Loaded>();
  const byDigest = createByteLru<Loaded>({ maxBytes: CACHED_BYTES });

  function load(definition: Definition): Loaded {
    const { bytes } = definition;
    let loaded = byObject.get(bytes);
    if (!loaded) {
      const digest = createHash("sha256").update(bytes).digest("hex");
      loaded = byDigest.get(digest) ?? { registry: read(definition), invokers: new Map() };
      byDigest.set(digest, loaded, bytes.byteLength);
      byObject.set(bytes, loaded);
    }
    return loaded;
  }

  return {
    kind: "descriptors",
    invoker(definition, sourceName) {
      const { registry, invokers } = load(definition);
      let invoker = invokers.get(sourceName);
      if (!invoker) {
        const method = findMethod(registry, sourceName);
        if (!method) {
          throw notFound("method", sourceName, "refresh the service to learn what it offers now");
        }
        invoker = createRpcInvoker({ pool, maxResultBytes, method, registry });
        invokers.set(sourceName, invoker);
      }
      return invoker;
    },
  };
}

function findMethod(registry: FileRegistry, sourceName: string): DescMethod | undefined {
  const [service, name] = sourceName.split("/");
  return registry.getService(service ?? "")?.methods.find((method) => method.name === name);
}

function read({ bytes }: Definition): FileRegistry {
  try {
    return readFiles(bytes);
  } catch (cause) {
    throw new DomainError({
      code: Code.Internal,
      reason: "BROKEN_DEFINITION",
      message: "The stored descriptors of the service cannot be read: refresh or register it again",
      cause,
    });
  }
}
