import { Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";

/** One message there, one back. */
export function isUnary(streaming: Streaming): boolean {
  return streaming === Streaming.UNARY;
}

/** Whether a tool answers with any number of results, whenever it likes. */
export function answersWithStream(streaming: Streaming): boolean {
  return streaming === Streaming.SERVER || streaming === Streaming.BIDI;
}
