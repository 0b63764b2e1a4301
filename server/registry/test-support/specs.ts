import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  type FileDescriptorSet,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import {
  type HealthCheckSpecSchema,
  InstanceSpecSchema,
  ServiceSpecSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { RegistryOptions } from "../registry.ts";

/** The usual options, so that tests name only what they are about. */
export const testOptions: RegistryOptions = {
  defaultLeaseTtlMs: 30_000,
  discoveryTimeoutMs: 4_000,
  refreshIntervalMs: 300_000,
  maxToolsPerService: 5_000,
  health: { intervalMs: 60_000, timeoutMs: 5_000, retentionMs: 86_400_000 },
};

export const service = (init: MessageInitShape<typeof ServiceSpecSchema>) => create(ServiceSpecSchema, init);
export const instance = (init: MessageInitShape<typeof InstanceSpecSchema>) =>
  create(InstanceSpecSchema, init);

/** For services whose instances are nobody. */
export const unchecked = { kind: { case: "none", value: {} } } satisfies MessageInitShape<
  typeof HealthCheckSpecSchema
>;

/** Describes `acme.weather.v1.WeatherService` with these methods, which all take a message with these text fields. */
export function weatherDescriptors(
  methods: readonly string[] = ["GetForecast"],
  fields: readonly string[] = ["city"],
): FileDescriptorSet {
  return create(FileDescriptorSetSchema, {
    file: [
      {
        name: "acme/weather/v1/weather.proto",
        package: "acme.weather.v1",
        syntax: "proto3",
        messageType: [
          {
            name: "Request",
            field: fields.map((name, index) => ({
              name,
              number: index + 1,
              type: FieldDescriptorProto_Type.STRING,
              label: FieldDescriptorProto_Label.OPTIONAL,
            })),
          },
          { name: "Response" },
        ],
        service: [
          {
            name: "WeatherService",
            method: methods.map((name) => ({
              name,
              inputType: ".acme.weather.v1.Request",
              outputType: ".acme.weather.v1.Response",
            })),
          },
        ],
      },
    ],
  });
}

/** A service that needs no server: described, and not checked unless `init` says so. */
export function described(
  init: Omit<MessageInitShape<typeof ServiceSpecSchema>, "$typeName" | "$unknown">,
  fileDescriptorSet = weatherDescriptors(),
) {
  return service({
    source: { kind: { case: "descriptors", value: { fileDescriptorSet } } },
    healthCheck: unchecked,
    ...init,
  });
}
