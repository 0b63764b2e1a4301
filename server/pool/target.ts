import type { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";

/** One address of a service, and how to speak to it. */
export interface Target {
  /** Normalised: `http://host:port` or `https://host:port`, without a trailing slash, with a path for HTTP services. */
  readonly endpoint: string;
  readonly protocol: Protocol;
  /** Headers to send with every request, secrets resolved. */
  readonly headers: Headers;
}
