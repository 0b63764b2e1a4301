import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { errorDomain } from "@toolplane/framework";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";

/** Metadata of a backend's error that means something to our caller; everything else is about the other hop. */
const FORWARDED_METADATA = ["grpc-retry-pushback-ms", "retry-after"];

/**
 * The error to answer with when a backend failed: the backend's own code, message and details, plus an ErrorInfo that
 * says where it came from.
 */
export function withBackendInfo(error: unknown, origin: Readonly<Record<string, string>>): ConnectError {
  const cause = ConnectError.from(error, Code.Unknown);
  const metadata = new Headers();
  for (const name of FORWARDED_METADATA) {
    const value = cause.metadata.get(name);
    if (value !== null) {
      metadata.set(name, value);
    }
  }
  const result = new ConnectError(cause.rawMessage, cause.code, metadata, undefined, cause);
  result.details = [
    ...cause.details,
    {
      desc: ErrorInfoSchema,
      value: create(ErrorInfoSchema, {
        reason: "BACKEND_ERROR",
        domain: errorDomain,
        metadata: { ...origin },
      }),
    },
  ];
  return result;
}
