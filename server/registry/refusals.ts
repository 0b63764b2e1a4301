import { type FieldViolation, invalidArgument } from "@toolplane/framework";
import type { InstanceSpec, ServiceSpec } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";

/** The name under which a server registers its own services as tools; nobody else can use it. */
export const OWN_SERVICE = "toolplane";

/** Headers that the protocols set themselves: another value would break every request. */
const PROTOCOL_HEADERS = new Set([
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "expect",
  "host",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
const PROTOCOL_HEADER_PREFIXES = ["connect-", "grpc-", "sec-"];

/** Refuses what validation by field cannot know of: names that mean something already, and credentials in a URL. */
export function refuseReserved(service: ServiceSpec, instance: InstanceSpec): void {
  const violations: FieldViolation[] = service.headers.flatMap(({ name }, index) =>
    isProtocolHeader(name.toLowerCase())
      ? [
          {
            field: `service.headers[${index}].name`,
            description: `"${name}" is set by the protocol: leave it out`,
          },
        ]
      : [],
  );
  if (service.name === OWN_SERVICE) {
    violations.push({ field: "service.name", description: RESERVED });
  }
  if (isOwnInstance(instance.id)) {
    violations.push({ field: "instance.id", description: RESERVED });
  }
  if (service.source?.kind.case === "utcpManual" && service.source.kind.value.manual.case === "url") {
    const { username, password } = new URL(service.source.kind.value.manual.value);
    if (username || password) {
      violations.push({
        field: "service.source.utcp_manual.url",
        description: "holds credentials, which would be shown: send them as a header with a secret",
      });
    }
  }
  if (violations.length > 0) {
    throw invalidArgument(violations);
  }
}

const RESERVED = "belongs to the server's own services: choose another";

/** Refuses to remove the server's own services. */
export function refuseOwn(
  target: { instanceId: string } | { service: { name: string } },
  field: string,
): void {
  if ("service" in target ? target.service.name === OWN_SERVICE : isOwnInstance(target.instanceId)) {
    throw invalidArgument([{ field, description: RESERVED }]);
  }
}

function isOwnInstance(id: string): boolean {
  return id.startsWith(`${OWN_SERVICE}:`);
}

function isProtocolHeader(name: string): boolean {
  return PROTOCOL_HEADERS.has(name) || PROTOCOL_HEADER_PREFIXES.some((prefix) => name.startsWith(prefix));
}
