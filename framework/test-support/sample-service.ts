import { create, createFileRegistry, type DescService } from "@bufbuild/protobuf";
import type { GenService } from "@bufbuild/protobuf/codegenv2";
import {
  type BytesValueSchema,
  type EmptySchema,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
  file_google_protobuf_empty,
  file_google_protobuf_struct,
  file_google_protobuf_wrappers,
  MethodOptions_IdempotencyLevel,
  type StringValueSchema,
  type StructSchema,
  type UInt32ValueSchema,
} from "@bufbuild/protobuf/wkt";

type SampleMethods = {
  /** Answers with the text it was sent. Has no side effects, so that Connect clients may use GET. */
  echo: { methodKind: "unary"; input: typeof StringValueSchema; output: typeof StringValueSchema };
  /** Answers with the object it was sent. */
  reflect: { methodKind: "unary"; input: typeof StructSchema; output: typeof StructSchema };
  /** Tells how many bytes it was sent. */
  measure: { methodKind: "unary"; input: typeof BytesValueSchema; output: typeof UInt32ValueSchema };
  /** Streams numbers. */
  count: {
    methodKind: "server_streaming";
    input: typeof UInt32ValueSchema;
    output: typeof UInt32ValueSchema;
  };
  /** Streams large messages until told to stop. */
  flood: { methodKind: "server_streaming"; input: typeof EmptySchema; output: typeof BytesValueSchema };
  /** Joins what it is sent. */
  join: { methodKind: "client_streaming"; input: typeof StringValueSchema; output: typeof StringValueSchema };
  /** Answers each text as it comes. */
  chat: { methodKind: "bidi_streaming"; input: typeof StringValueSchema; output: typeof StringValueSchema };
};

/** A service with a method of every kind, described here so that tests of serving need no `.proto` file. */
export const SampleService = describe();

function describe(): GenService<SampleMethods> {
  const text = ".google.protobuf.StringValue";
  const bytes = ".google.protobuf.BytesValue";
  const number = ".google.protobuf.UInt32Value";
  const struct = ".google.protobuf.Struct";
  const file = create(FileDescriptorProtoSchema, {
    name: "sample/v1/sample.proto",
    package: "sample.v1",
    syntax: "proto3",
    dependency: [
      "google/protobuf/wrappers.proto",
      "google/protobuf/struct.proto",
      "google/protobuf/empty.proto",
    ],
    messageType: [
      {
        name: "Unused",
        field: [
          {
            name: "f",
            number: 1,
            type: FieldDescriptorProto_Type.BOOL,
            label: FieldDescriptorProto_Label.OPTIONAL,
          },
        ],
      },
    ],
    service: [
      {
        name: "SampleService",
        method: [
          {
            name: "Echo",
            inputType: text,
            outputType: text,
            options: { idempotencyLevel: MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS },
          },
          { name: "Reflect", inputType: struct, outputType: struct },
          { name: "Measure", inputType: bytes, outputType: number },
          { name: "Count", inputType: number, outputType: number, serverStreaming: true },
          { name: "Flood", inputType: ".google.protobuf.Empty", outputType: bytes, serverStreaming: true },
          { name: "Join", inputType: text, outputType: text, clientStreaming: true },
          { name: "Chat", inputType: text, outputType: text, clientStreaming: true, serverStreaming: true },
        ],
      },
    ],
  });
  const known = [file_google_protobuf_wrappers, file_google_protobuf_struct, file_google_protobuf_empty];
  const registry = createFileRegistry(file, (name) => known.find(({ proto }) => proto.name === name));
  const service: DescService | undefined = registry.getService("sample.v1.SampleService");
  if (service === undefined) {
    throw new Error("the sample service is not described");
  }
  // The compiler cannot know what the descriptor above says.
  return service as unknown as GenService<SampleMethods>;
}
