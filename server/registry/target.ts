import {
  type Header,
  type InstanceSpec,
  Protocol,
  type ServiceSpec,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { SecretResolver } from "../config/secrets.ts";
import type { Target } from "../pool/target.ts";

/**
 * Where and how to reach an instance. Secrets are read anew each time. Throws a DomainError when one is missing or may
 * not be sent there.
 */
export function createTarget(
  service: Pick<ServiceSpec, "headers">,
  instance: Pick<InstanceSpec, "endpoint" | "protocol">,
  secrets: SecretResolver,
): Target {
  return {
    endpoint: instance.endpoint,
    protocol: effectiveProtocol(instance.protocol),
    headers: resolveHeaders(service.headers, instance.endpoint, secrets),
  };
}

/** An instance that names no protocol speaks gRPC. */
export function effectiveProtocol(protocol: Protocol): Protocol {
  return protocol === Protocol.UNSPECIFIED ? Protocol.GRPC : protocol;
}

function resolveHeaders(specs: readonly Header[], endpoint: string, secrets: SecretResolver): Headers {
  const headers = new Headers();
  for (const { name, value } of specs) {
    switch (value.case) {
      case "literal":
        headers.append(name, value.value);
        break;
      case "secret":
        headers.append(name, secrets.resolve(value.value, endpoint));
        break;
      case undefined:
        break;
    }
  }
  return headers;
}
