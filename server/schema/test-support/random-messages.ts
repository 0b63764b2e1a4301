import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  fromJson,
  type JsonValue,
  type Message,
  type Registry,
  ScalarType,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import {
  anyPack,
  DurationSchema,
  FeatureSet_FieldPresence,
  FieldMaskSchema,
  TimestampSchema,
} from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import type { Draw } from "./random-descriptors.ts";

const wellFormed = () => fc.string({ unit: "binary", maxLength: 8 });
const nanos = () => fc.constantFrom(0, 1, 500_000_000, 120_000, 999_999_999);
const value = () => fc.jsonValue({ maxDepth: 2 });
const struct = () => fc.dictionary(wellFormed(), value(), { maxKeys: 3 });
const list = () => fc.array(value(), { maxLength: 3 });
const paths = () => fc.array(fc.constantFrom("city", "wind_speed", "a.b_c", "x1.y2"), { maxLength: 3 });
const int32 = () => fc.oneof(fc.integer(), fc.constantFrom(0, -(2 ** 31), 2 ** 31 - 1));
const uint32 = () => fc.oneof(fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.constantFrom(0, 2 ** 32 - 1));
const int64 = () =>
  fc.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.constantFrom(0n, 2n ** 63n - 1n));
const uint64 = () =>
  fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.constantFrom(0n, 2n ** 64n - 1n));
const MAX_DEPTH = 3;

/** A random message. Required fields are always set. */
export function randomMessage(draw: Draw, desc: DescMessage, registry: Registry, depth = 0): Message {
  const known = wellKnown(draw, desc, registry, depth);
  if (known !== undefined) {
    return known;
  }
  const message = create(desc);
  const reflected = reflect(desc, message);
  for (const field of desc.fields) {
    const required = field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED;
    if ((required || draw(fc.boolean)) && (field.message === undefined || depth < MAX_DEPTH)) {
      fill(draw, reflected, field, registry, depth + 1);
    }
  }
  return message;
}

function fill(
  draw: Draw,
  message: ReflectMessage,
  field: DescField,
  registry: Registry,
  depth: number,
): void {
  switch (field.fieldKind) {
    case "list":
      for (let n = draw(fc.nat, { max: 3 }); n > 0; n--) {
        message.get(field).add(element(draw, field, registry, depth));
      }
      break;
    case "map":
      for (let n = draw(fc.nat, { max: 3 }); n > 0; n--) {
        message.get(field).set(mapKey(draw, field.mapKey), element(draw, field, registry, depth));
      }
      break;
    default:
      message.set(field, element(draw, field, registry, depth));
  }
}

function element(draw: Draw, field: DescField, registry: Registry, depth: number) {
  if (field.message !== undefined) {
    return reflect(field.message, randomMessage(draw, field.message, registry, depth));
  }
  return field.enum === undefined ? scalar(draw, field.scalar) : enumValue(draw, field.enum);
}

function mapKey(
  draw: Draw,
  type: Exclude<ScalarType, ScalarType.FLOAT | ScalarType.DOUBLE | ScalarType.BYTES>,
) {
  return scalar(draw, type) as string | number | bigint | boolean;
}

function enumValue(draw: Draw, desc: DescEnum): number {
  const known = draw(fc.constantFrom, ...desc.values.map(({ number }) => number));
  // JSON has one form for every number of NullValue.
  return desc.open && desc.typeName !== "google.protobuf.NullValue" && draw(fc.boolean) ? draw(int32) : known;
}

export function scalar(draw: Draw, type: ScalarType): string | number | bigint | boolean | Uint8Array {
  switch (type) {
    case ScalarType.STRING:
      return draw(wellFormed);
    case ScalarType.BOOL:
      return draw(fc.boolean);
    case ScalarType.BYTES:
      return draw(fc.uint8Array, { maxLength: 9 });
    case ScalarType.DOUBLE:
      return draw(fc.double);
    case ScalarType.FLOAT:
      return draw(fc.float);
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return draw(uint32);
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return draw(int64);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return draw(uint64);
    default:
      return draw(int32);
  }
}

/** Values that have a JSON form, although the fields of their types could hold more. */
function wellKnown(draw: Draw, desc: DescMessage, registry: Registry, depth: number): Message | undefined {
  switch (desc.typeName) {
    case "google.protobuf.Any": {
      const packed = draw(
        fc.constantFrom,
        "",
        "google.protobuf.Duration",
        "google.protobuf.Struct",
        "test.M0",
        "test.M1",
      );
      const type = depth < MAX_DEPTH ? registry.getMessage(packed) : undefined;
      return type === undefined
        ? create(desc)
        : anyPack(type, randomMessage(draw, type, registry, depth + 1));
    }
    case "google.protobuf.Timestamp":
      return create(TimestampSchema, {
        seconds: draw(fc.bigInt, { min: -62_135_596_800n, max: 253_402_300_799n }),
        nanos: draw(nanos),
      });
    case "google.protobuf.Duration": {
      const sign = draw(fc.constantFrom, 1, -1);
      return create(DurationSchema, {
        seconds: BigInt(sign) * draw(fc.bigInt, { min: 0n, max: 315_576_000_000n }),
        nanos: sign * draw(nanos) + 0,
      });
    }
    case "google.protobuf.FieldMask":
      return create(FieldMaskSchema, {
        paths: draw(paths),
      });
    case "google.protobuf.Struct":
      return fromJson(desc, draw(struct) as JsonValue);
    case "google.protobuf.ListValue":
      return fromJson(desc, draw(list) as JsonValue);
    case "google.protobuf.Value":
      return fromJson(desc, draw(value) as JsonValue);
    default:
      return undefined;
  }
}
