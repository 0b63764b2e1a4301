import type { DescMethod } from "@bufbuild/protobuf";
import { Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";

/** How the messages of a method flow. */
export function streamingOf(methodKind: DescMethod["methodKind"]): Streaming {
  switch (methodKind) {
    case "unary":
      return Streaming.UNARY;
    case "server_streaming":
      return Streaming.SERVER;
    case "client_streaming":
      return Streaming.CLIENT;
    case "bidi_streaming":
      return Streaming.BIDI;
  }
}
