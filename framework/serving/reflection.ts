import { type DescService, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import { file_google_rpc_error_details } from "@toolplane/gen/google/rpc/error_details_pb.js";
import {
  type ServerReflectionRequest,
  ServerReflection as ServerReflectionV1,
} from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionV1Alpha } from "@toolplane/gen/grpc/reflection/v1alpha/reflection_pb.js";
import { createFileIndex, type FileIndex, type ServedFile } from "./file-index.ts";

/**
 * Lets clients ask a server for its schema: gRPC server reflection, v1 and v1alpha, as
 * https://github.com/grpc/grpc/blob/master/doc/server-reflection.md describes it.
 *
 * Both versions list the given services and themselves. What clients find besides: every file that the services
 * depend on, so also the custom options used in them, and the error details of `google.rpc`, which clients need to
 * print errors.
 *
 * @param services every service of the server, health included
 * @param documented a serialized `google.protobuf.FileDescriptorSet` that holds the services' files with their comments,
 *   as `buf build -o` and `protoc --include_source_info -o` write it. Generated code has no comments, so without it clients
 *   see none.
 */
export function reflectionRoutes(
  services: readonly DescService[],
  documented?: Uint8Array,
): (router: ConnectRouter) => void {
  const sources = documented && fromBinary(FileDescriptorSetSchema, documented);
  const listed = [...services, ServerReflectionV1, ServerReflectionV1Alpha];
  const names = [...new Set(listed.map(({ typeName }) => typeName))].sort();
  // Indexing takes milliseconds that nobody should wait for at start.
  let index: FileIndex | undefined;
  const reflect = <Request extends ReflectionRequest>(requests: AsyncIterable<Request>) => {
    index ??= createFileIndex([...listed.map(({ file }) => file), file_google_rpc_error_details], sources);
    return answerAll(requests, index, names);
  };
  return (router) => {
    router.service(ServerReflectionV1, { serverReflectionInfo: reflect });
    router.service(ServerReflectionV1Alpha, { serverReflectionInfo: reflect });
  };
}

/** What the requests of both versions have in common: they differ in their package only. */
type ReflectionRequest = Pick<ServerReflectionRequest, "host"> & {
  readonly messageRequest:
    | Exclude<ServerReflectionRequest["messageRequest"], { case: "fileContainingExtension" }>
    | {
        readonly case: "fileContainingExtension";
        readonly value: { readonly containingType: string; readonly extensionNumber: number };
      };
};

/** The responses' `message_response`, in a form that fits both versions. */
type Answer =
  | { case: "listServicesResponse"; value: { service: { name: string }[] } }
  | { case: "fileDescriptorResponse"; value: { fileDescriptorProto: Uint8Array[] } }
  | { case: "allExtensionNumbersResponse"; value: { baseTypeName: string; extensionNumber: number[] } }
  | { case: "errorResponse"; value: { errorCode: Code; errorMessage: string } };

async function* answerAll<Request extends ReflectionRequest>(
  requests: AsyncIterable<Request>,
  index: FileIndex,
  names: readonly string[],
) {
  const sent = new Set<ServedFile>();
  for await (const request of requests) {
    yield {
      validHost: request.host,
      originalRequest: request,
      messageResponse: answer(request, index, names, sent),
    };
  }
}

/** @param sent the files that the stream has carried so far, which clients keep and need not be sent again. */
function answer(
  { messageRequest: request }: ReflectionRequest,
  index: FileIndex,
  names: readonly string[],
  sent: Set<ServedFile>,
): Answer {
  switch (request.case) {
    case "listServices":
      return { case: "listServicesResponse", value: { service: names.map((name) => ({ name })) } };
    case "fileByFilename":
      return fileAnswer(index.byName(request.value), `file "${request.value}"`, sent);
    case "fileContainingSymbol":
      return fileAnswer(index.bySymbol(request.value), `symbol "${request.value}"`, sent);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = request.value;
      const file = index.byExtension(containingType, extensionNumber);
      return fileAnswer(file, `extension ${extensionNumber} of message "${containingType}"`, sent);
    }
    case "allExtensionNumbersOfType": {
      const numbers = index.extensionNumbers(request.value);
      return numbers === undefined
        ? errorAnswer(Code.NotFound, `message "${request.value}" is not known to the server`)
        : {
            case: "allExtensionNumbersResponse",
            value: { baseTypeName: request.value, extensionNumber: [...numbers] },
          };
    }
    case undefined:
      return errorAnswer(Code.InvalidArgument, "the request asks for nothing that the server knows of");
  }
}

/** Answers with a file, first, and with the files that it needs, nearest first. */
function fileAnswer(file: ServedFile | undefined, wanted: string, sent: Set<ServedFile>): Answer {
  if (file === undefined) {
    return errorAnswer(Code.NotFound, `${wanted} is not known to the server`);
  }
  // A set is iterated in the order of insertion, also while it grows.
  const needed = new Set([file]);
  for (const each of needed) {
    for (const dependency of each.dependencies) {
      needed.add(dependency);
    }
  }
  const unsent = [...needed].filter((each) => each === file || !sent.has(each));
  for (const each of unsent) {
    sent.add(each);
  }
  return {
    case: "fileDescriptorResponse",
    value: { fileDescriptorProto: unsent.map(({ bytes }) => bytes()) },
  };
}

function errorAnswer(errorCode: Code, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}
