import { create, type DescMessage, toBinary } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { type BadRequest, BadRequestSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";

type Detail = ConnectError["details"][number];

/**
 * What an error may take in the trailers of a response. Clients of gRPC accept 8 KiB of metadata in all unless they are
 * told otherwise, and Node sends no trailers at all, not even the status, when they are larger than 64 KiB.
 */
const MAX_STATUS_BYTES = 7 * 1024;
const MAX_MESSAGE_BYTES = 2 * 1024;
/** What a detail takes besides its content, for its type and lengths. */
const DETAIL_OVERHEAD = 64;

/**
 * Cuts an error to what every client can receive: the message is shortened, a `BadRequest` keeps the violations that
 * come first, and other details that are too large are left out, the largest first. Changes the error.
 */
export function fitIntoTrailers(error: ConnectError): void {
  const message = cutEncoded(error.rawMessage.toWellFormed());
  if (message !== error.rawMessage) {
    Object.assign(error, { rawMessage: message, message: `[${codeToString(error.code)}] ${message}` });
  }
  // `grpc-message` is percent-encoded, and `grpc-status-details-bin` repeats it beside the details in base64.
  const encodedBytes = MAX_STATUS_BYTES - encodeURIComponent(message).length;
  let left = Math.floor((encodedBytes * 3) / 4) - Buffer.byteLength(message) - DETAIL_OVERHEAD;
  const kept = new Map<Detail, Detail>();
  const bySize = error.details
    .map((detail) => ({ detail, bytes: sizeOf(detail) }))
    .sort((one, other) => one.bytes - other.bytes);
  for (const { detail, bytes } of bySize) {
    const fitting = bytes <= left ? detail : shortened(detail, left);
    if (fitting) {
      kept.set(detail, fitting);
      left -= Math.min(bytes, left);
    }
  }
  if (kept.size < error.details.length || [...kept].some(([before, after]) => before !== after)) {
    error.details = error.details.flatMap((detail) => kept.get(detail) ?? []);
  }
}

/** The beginning of a text that takes no more than `MAX_MESSAGE_BYTES` when it is percent-encoded. */
function cutEncoded(text: string): string {
  if (encodeURIComponent(text).length <= MAX_MESSAGE_BYTES) {
    return text;
  }
  const ellipsis = "…";
  let bytes = encodeURIComponent(ellipsis).length;
  let cut = "";
  for (const character of text) {
    bytes += encodeURIComponent(character).length;
    if (bytes > MAX_MESSAGE_BYTES) {
      break;
    }
    cut += character;
  }
  return cut + ellipsis;
}

function sizeOf(detail: Detail): number {
  return DETAIL_OVERHEAD + ("desc" in detail ? encode(detail).byteLength : detail.value.byteLength);
}

function encode({ desc, value }: Extract<Detail, { desc: DescMessage }>): Uint8Array {
  return toBinary(desc, create(desc, value));
}

/** The part of a detail that fits into `bytes`; undefined when there is none. */
function shortened(detail: Detail, bytes: number): Detail | undefined {
  if (!("desc" in detail) || detail.desc.typeName !== BadRequestSchema.typeName) {
    return undefined;
  }
  const { fieldViolations }: BadRequest = create(BadRequestSchema, detail.value);
  let left = bytes - DETAIL_OVERHEAD;
  const first = fieldViolations.findIndex((violation) => {
    left -= toBinary(BadRequestSchema, create(BadRequestSchema, { fieldViolations: [violation] })).byteLength;
    return left < 0;
  });
  const fitting = fieldViolations.slice(0, first);
  return fitting.length > 0
    ? { desc: BadRequestSchema, value: create(BadRequestSchema, { fieldViolations: fitting }) }
    : undefined;
}
