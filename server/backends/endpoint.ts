import { type FieldViolation, invalidArgument } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";

const SCHEMES: Readonly<Record<string, string>> = {
  http: "http",
  https: "https",
  grpc: "http",
  grpcs: "https",
};

/**
 * Brings what people write as an address into the one form that is stored and compared: `http://host:port` or
 * `https://host:port`, in lower case, without default ports and trailing slashes. `host:port` is cleartext; `grpc://` and
 * `grpcs://` are `http://` and `https://`. A path is kept for plain HTTP services only, as a base for relative addresses.
 *
 * Throws `invalidArgument` that names `field`.
 */
export function normalizeEndpoint(
  endpoint: string,
  protocol: Protocol = Protocol.UNSPECIFIED,
  field = "instance.endpoint",
): string {
  const text = endpoint.trim();
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1];
  const plain = scheme === undefined ? "http" : SCHEMES[scheme.toLowerCase()];
  if (plain === undefined) {
    throw refuse(
      field,
      "ENDPOINT_SCHEME",
      `"${scheme}://" is not supported: use http://, https://, grpc://, grpcs:// or just host:port`,
    );
  }
  const url = parse(`${plain}://${scheme === undefined ? text : text.slice(scheme.length + 3)}`);
  if (!url?.hostname) {
    throw refuse(field, "ENDPOINT_MALFORMED", `"${shorten(endpoint)}" is not an address: write host:port`);
  }
  if (url.username || url.password) {
    throw refuse(
      field,
      "ENDPOINT_CREDENTIALS",
      "credentials do not belong into the address: use `service.headers` with a secret",
    );
  }
  if (url.search || url.hash) {
    throw refuse(field, "ENDPOINT_QUERY", "an address has neither a query nor a fragment");
  }
  if (url.port === "0") {
    throw refuse(field, "ENDPOINT_PORT", "the port must be from 1 to 65535");
  }
  if (scheme === undefined && !hasPort(text)) {
    throw refuse(field, "ENDPOINT_PORT", `"${shorten(endpoint)}" has no port: write host:port`);
  }
  const path = url.pathname.replace(/\/+$/, "");
  if (path && protocol !== Protocol.HTTP) {
    throw refuse(field, "ENDPOINT_PATH", "an address of a gRPC or Connect service has no path");
  }
  return url.origin + path;
}

/** An address without a scheme has to name its port, even where it is the scheme's default that URL drops. */
function hasPort(text: string): boolean {
  return /^(\[[^\]]*\]|[^:/]+):\d+(\/|$)/.test(text);
}

function parse(text: string): URL | undefined {
  return URL.canParse(text) ? new URL(text) : undefined;
}

function shorten(text: string): string {
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

function refuse(field: string, reason: string, description: string): Error {
  const violation: FieldViolation = { field, reason, description };
  return invalidArgument([violation]);
}
