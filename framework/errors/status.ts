import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Any, AnySchema, anyPack } from "@bufbuild/protobuf/wkt";
import type { ConnectError } from "@connectrpc/connect";
import type { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { type FailedCall, toConnectError } from "./connect-error.ts";

/** An error as a message, for responses that carry the failures of several things beside their successes. */
export function toStatus(error: unknown, call: FailedCall): MessageInitShape<typeof StatusSchema> {
  const { code, rawMessage, details } = toConnectError(error, call);
  return { code, message: rawMessage, details: details.map(toAny) };
}

/** A detail in the form of `google.rpc.Status`. */
export function toAny(detail: ConnectError["details"][number]): Any {
  return "desc" in detail
    ? anyPack(detail.desc, create(detail.desc, detail.value))
    : create(AnySchema, { typeUrl: `type.googleapis.com/${detail.type}`, value: detail.value });
}
