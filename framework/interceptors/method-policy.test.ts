import {
  create,
  createFileRegistry,
  type DescMethod,
  type MessageInitShape,
  setExtension,
} from "@bufbuild/protobuf";
import {
  durationFromMs,
  FileDescriptorProtoSchema,
  file_google_protobuf_wrappers,
  MethodOptions_IdempotencyLevel,
  MethodOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import {
  PolicyOptionsSchema,
  policy,
  Role,
  Sharing,
  ToolOptionsSchema,
  tool,
} from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { expect, test } from "vitest";
import { methodPolicies } from "./method-policy.ts";

const NAME = "sample.v1.AnnotatedService/Method";

function method(
  annotated: MessageInitShape<typeof PolicyOptionsSchema> = {},
  idempotencyLevel = MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS,
): DescMethod {
  const options = create(MethodOptionsSchema, { idempotencyLevel });
  setExtension(options, policy, create(PolicyOptionsSchema, annotated));
  setExtension(options, tool, create(ToolOptionsSchema, { cacheTtl: durationFromMs(60_000) }));
  const type = ".google.protobuf.StringValue";
  const file = create(FileDescriptorProtoSchema, {
    name: "annotated.proto",
    package: "sample.v1",
    syntax: "proto3",
    dependency: ["google/protobuf/wrappers.proto"],
    service: [
      { name: "AnnotatedService", method: [{ name: "Method", inputType: type, outputType: type, options }] },
    ],
  });
  const registry = createFileRegistry(file, () => file_google_protobuf_wrappers.proto);
  const [found] = registry.getService("sample.v1.AnnotatedService")?.methods ?? [];
  if (found === undefined) {
    throw new Error("the method is not described");
  }
  return found;
}

test("a method is protected as its annotations say", () => {
  const annotated = method({
    role: Role.CALLER,
    rateLimit: { requests: 30, period: durationFromMs(10_000), burst: 5 },
    maxConcurrency: 4,
    timeout: durationFromMs(2_500),
    sharing: Sharing.OFF,
    retryAttempts: 5,
  });
  expect(methodPolicies()(annotated)).toEqual({
    role: "caller",
    rateLimit: { limit: 30, periodMs: 10_000, burst: 5 },
    maxConcurrency: 4,
    timeoutMs: 2_500,
    sharing: false,
    retryAttempts: 5,
    cacheTtlMs: 60_000,
  });
});

test("what annotations leave open follows from side effects, or is not limited", () => {
  expect(methodPolicies()(method())).toEqual({
    role: "reader",
    rateLimit: undefined,
    maxConcurrency: undefined,
    timeoutMs: undefined,
    sharing: true,
    retryAttempts: undefined,
    cacheTtlMs: 60_000,
  });
  const changing = method({ rateLimit: { requests: 7 } }, MethodOptions_IdempotencyLevel.IDEMPOTENT);
  expect(methodPolicies()(changing)).toMatchObject({
    role: "operator",
    rateLimit: { limit: 7, periodMs: 60_000 },
    sharing: false,
  });
});

test("sharing may be asked for where there are side effects", () => {
  const changing = method({ sharing: Sharing.ON }, MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN);
  expect(methodPolicies()(changing).sharing).toBe(true);
});

test("what the code says goes before annotations, field by field", () => {
  const annotated = method({
    role: Role.OPERATOR,
    rateLimit: { requests: 30 },
    maxConcurrency: 4,
    timeout: durationFromMs(2_500),
    sharing: Sharing.ON,
    retryAttempts: 5,
  });
  const own = {
    role: "public",
    rateLimit: false,
    maxConcurrency: Number.POSITIVE_INFINITY,
    sharing: false,
    cacheTtlMs: 0,
  } as const;
  expect(methodPolicies({ [NAME]: own })(annotated)).toEqual({
    role: "public",
    rateLimit: undefined,
    maxConcurrency: Number.POSITIVE_INFINITY,
    timeoutMs: 2_500,
    sharing: false,
    retryAttempts: 5,
    cacheTtlMs: 0,
  });
});

test("it is worked out once for each method", () => {
  const policyOf = methodPolicies();
  const one = method();
  expect(policyOf(one)).toBe(policyOf(one));
});
