import { create, createRegistry, type DescMessage, type Message } from "@bufbuild/protobuf";
import {
  type Any,
  AnySchema,
  anyPack,
  DurationSchema,
  file_google_protobuf_any,
  ListValueSchema,
} from "@bufbuild/protobuf/wkt";
import { BadRequestSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { describe, expect, it } from "vitest";
import { messageToJson } from "./any-json.ts";

const registry = createRegistry(file_google_protobuf_any, StatusSchema, BadRequestSchema, DurationSchema);

function unknown(value = [1, 2, 3]): Any {
  return create(AnySchema, { typeUrl: "type.example.com/acme.Unknown", value: Uint8Array.from(value) });
}

function json(desc: DescMessage, message: Message): unknown {
  return messageToJson(desc, message, registry);
}

describe("google.protobuf.Any as JSON", () => {
  it("shows what is inside when the type is known", () => {
    const inside = create(BadRequestSchema, { fieldViolations: [{ field: "city" }] });
    expect(json(AnySchema, anyPack(BadRequestSchema, inside))).toEqual({
      "@type": "type.googleapis.com/google.rpc.BadRequest",
      fieldViolations: [{ field: "city" }],
    });
    expect(json(AnySchema, anyPack(DurationSchema, create(DurationSchema, { seconds: 3n })))).toEqual({
      "@type": "type.googleapis.com/google.protobuf.Duration",
      value: "3s",
    });
  });

  it("begins with the type, at any depth", () => {
    const violation = anyPack(
      BadRequestSchema,
      create(BadRequestSchema, { fieldViolations: [{ field: "city" }] }),
    );
    const inner = create(StatusSchema, { code: 3, message: "inner", details: [violation, unknown()] });
    const status = create(StatusSchema, {
      code: 3,
      message: "outer",
      details: [
        anyPack(StatusSchema, inner),
        anyPack(DurationSchema, create(DurationSchema, { seconds: 3n })),
      ],
    });
    expect(JSON.stringify(json(StatusSchema, status))).toBe(
      '{"code":3,"message":"outer","details":[' +
        '{"@type":"type.googleapis.com/google.rpc.Status","code":3,"message":"inner","details":[' +
        '{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"city"}]},' +
        '{"@type":"type.example.com/acme.Unknown","value":"AQID"}]},' +
        '{"@type":"type.googleapis.com/google.protobuf.Duration","value":"3s"}]}',
    );
  });

  it("keeps the bytes when the type is unknown, at any depth, and leaves the message as it was", () => {
    const inner = create(StatusSchema, { message: "inner", details: [unknown()] });
    const status = create(StatusSchema, {
      message: "outer",
      details: [
        unknown([]),
        anyPack(StatusSchema, inner),
        anyPack(DurationSchema, create(DurationSchema)),
        unknown(),
      ],
    });
    const opaque = { "@type": "type.example.com/acme.Unknown", value: "AQID" };
    expect(json(StatusSchema, status)).toEqual({
      message: "outer",
      details: [
        { "@type": "type.example.com/acme.Unknown" },
        { "@type": "type.googleapis.com/google.rpc.Status", message: "inner", details: [opaque] },
        { "@type": "type.googleapis.com/google.protobuf.Duration", value: "0s" },
        opaque,
      ],
    });
    expect(status.details[3]?.value).toEqual(Uint8Array.of(1, 2, 3));
  });

  it("does not hide other things that JSON cannot say", () => {
    const list = create(ListValueSchema, {
      values: [{ kind: { case: "numberValue", value: Number.NaN } }],
    });
    expect(() => json(ListValueSchema, list)).toThrow(/NaN/);
    const broken = create(AnySchema, { typeUrl: "no/valid type", value: Uint8Array.of(1) });
    expect(() => json(AnySchema, broken)).toThrow();
  });
});
