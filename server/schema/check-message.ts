import type {
  DescEnum,
  DescExtension,
  DescField,
  DescMessage,
  DescOneof,
  Registry,
} from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence, hasCustomJsonRepresentation, isWrapperDesc } from "@bufbuild/protobuf/wkt";
import { canonicalMapKey, expectedScalar, isScalarJson } from "./check-scalar.ts";
import { isDuration, isFieldMask, isTimestamp } from "./check-well-known.ts";
import type { Violations } from "./violations.ts";
import { describe, didYouMean, type FieldNames, nameOf, oneOf, quote } from "./wording.ts";

/** Messages may nest this deep, as in every Protobuf implementation. */
export const MAX_DEPTH = 100;

type AnyField = DescField | DescExtension;

/** Checks the JSON form of a message and reports everything that is wrong with it. */
export function checkMessageJson(
  desc: DescMessage,
  json: unknown,
  registry: Registry | undefined,
  violations: Violations,
  names: FieldNames = "json",
): void {
  new Check(registry, violations, names).message(desc, json, 0);
}

/** The fields of a message by both of their names. */
const fieldsByKey = new WeakMap<DescMessage, ReadonlyMap<string, DescField>>();

function lookup(desc: DescMessage): ReadonlyMap<string, DescField> {
  let fields = fieldsByKey.get(desc);
  if (fields === undefined) {
    fields = new Map(
      desc.fields.flatMap((field): [string, DescField][] => [
        [field.name, field],
        [field.jsonName, field],
      ]),
    );
    fieldsByKey.set(desc, fields);
  }
  return fields;
}

/** Walks a JSON value along a descriptor. `depth` counts the messages around the value, as parsers of Protobuf do. */
class Check {
  readonly #registry: Registry | undefined;
  readonly #violations: Violations;
  readonly #names: FieldNames;

  constructor(registry: Registry | undefined, violations: Violations, names: FieldNames) {
    this.#registry = registry;
    this.#violations = violations;
    this.#names = names;
  }

  message(desc: DescMessage, json: unknown, depth: number): void {
    if (!this.#goDeeper(depth)) {
      return;
    }
    const inside = depth + 1;
    switch (desc.typeName) {
      case "google.protobuf.Any":
        this.#any(json, inside);
        break;
      case "google.protobuf.Timestamp":
        this.#form(isTimestamp(json), 'a time in RFC 3339, such as "2030-01-31T12:00:00Z"', json);
        break;
      case "google.protobuf.Duration":
        this.#form(isDuration(json), 'a duration in seconds, such as "1.5s"', json);
        break;
      case "google.protobuf.FieldMask":
        this.#form(isFieldMask(json), 'field paths in lowerCamelCase, such as "city,windSpeed"', json);
        break;
      case "google.protobuf.Struct":
        if (isObject(json)) {
          this.#members(json, inside);
        } else {
          this.#expected("an object", json);
        }
        break;
      case "google.protobuf.ListValue":
        if (Array.isArray(json)) {
          this.#items(json, inside);
        } else {
          this.#expected("an array", json);
        }
        break;
      case "google.protobuf.Value":
        this.#value(json, inside);
        break;
      default:
        if (isWrapperDesc(desc)) {
          this.#wrapper(desc, json);
        } else if (isObject(json)) {
          this.#object(desc, json, inside);
        } else {
          this.#expected(`an object (${desc.typeName})`, json);
        }
    }
  }

  #wrapper(desc: DescMessage, json: unknown): void {
    const [value] = desc.fields;
    if (json !== null && value?.fieldKind === "scalar") {
      this.#scalar(value, json);
    }
  }

  #object(desc: DescMessage, json: Readonly<Record<string, unknown>>, depth: number, skip?: string): void {
    const fields = lookup(desc);
    const keys = new Map<DescField, string>();
    const chosen = new Map<DescOneof, string>();
    for (const key of Object.keys(json)) {
      if (key === skip) {
        continue;
      }
      const value = json[key];
      this.#violations.within(key, () => {
        const field = fields.get(key);
        if (field === undefined) {
          this.#unknown(desc, key, value, depth);
          return;
        }
        const other = keys.get(field);
        if (other !== undefined) {
          this.#violations.add("DUPLICATE_FIELD", `is the same field as ${quote(other)}; give it once`);
          return;
        }
        keys.set(field, key);
        if (field.oneof !== undefined && !(field.fieldKind === "scalar" && value === null)) {
          const earlier = chosen.get(field.oneof);
          if (earlier !== undefined) {
            this.#violations.add(
              "ONEOF_CONFLICT",
              `cannot be given together with ${quote(earlier)}: at most one of ` +
                `${field.oneof.fields.map((each) => quote(nameOf(each, this.#names))).join(", ")} is allowed`,
            );
            return;
          }
          chosen.set(field.oneof, key);
        }
        this.field(field, value, depth);
      });
    }
    for (const field of desc.fields) {
      if (field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED) {
        const key = keys.get(field);
        if (key === undefined || (json[key] === null && !takesNull(field))) {
          this.#violations.within(nameOf(field, this.#names), () =>
            this.#violations.add("REQUIRED", "is required"),
          );
        }
      }
    }
  }

  #unknown(desc: DescMessage, key: string, value: unknown, depth: number): void {
    const extension =
      key.startsWith("[") && key.endsWith("]") ? this.#registry?.getExtension(key.slice(1, -1)) : undefined;
    if (extension?.extendee.typeName === desc.typeName) {
      this.field(extension, value, depth);
      return;
    }
    const names = desc.fields.map((field) => nameOf(field, this.#names));
    const allowed =
      names.length === 0
        ? `${desc.typeName} has no fields`
        : `${desc.typeName} has ${names.length === 1 ? `only the field ${quote(names[0] ?? "")}` : fieldList(names)}`;
    this.#violations.add("UNKNOWN_FIELD", `is no known field${didYouMean(key, names)}: ${allowed}`);
  }

  field(field: AnyField, json: unknown, depth: number): void {
    // An absent field, or a value that can be null.
    if (json === null) {
      return;
    }
    switch (field.fieldKind) {
      case "scalar":
        this.#scalar(field, json);
        break;
      case "enum":
        this.#enum(field.enum, json);
        break;
      case "message":
        this.message(field.message, json, depth);
        break;
      case "list":
        if (Array.isArray(json)) {
          this.#list(field, json, depth);
        } else {
          this.#expected("an array", json);
        }
        break;
      case "map":
        if (isObject(json)) {
          this.#map(field, json, depth);
        } else {
          this.#expected("an object", json);
        }
        break;
    }
  }

  #list(field: AnyField & { fieldKind: "list" }, json: readonly unknown[], depth: number): void {
    for (let i = 0; i < json.length; i++) {
      this.#violations.within(i, () => this.#element(field, json[i], depth));
    }
  }

  #map(field: AnyField & { fieldKind: "map" }, json: Readonly<Record<string, unknown>>, depth: number): void {
    const seen = new Set<string>();
    for (const key of Object.keys(json)) {
      this.#violations.within({ key }, () => {
        const canonical = canonicalMapKey(field.mapKey, key);
        if (canonical === undefined) {
          this.#violations.add(
            "INVALID_MAP_KEY",
            `expected the key to be ${expectedScalar(field.mapKey, key)}, got ${quote(key)}`,
          );
        } else if (seen.has(canonical)) {
          this.#violations.add("DUPLICATE_MAP_KEY", `another key has the same value ${canonical}`);
        } else {
          seen.add(canonical);
        }
        this.#element(field, json[key], depth);
      });
    }
  }

  #element(field: AnyField & { fieldKind: "list" | "map" }, json: unknown, depth: number): void {
    if (json === null && field.message !== undefined && !takesNull(field)) {
      this.#expected(`a value (${field.message.typeName})`, json);
    } else if (field.message !== undefined) {
      this.message(field.message, json, depth);
    } else if (field.enum !== undefined) {
      this.#enum(field.enum, json);
    } else {
      this.#scalar(field, json);
    }
  }

  #scalar(field: { readonly scalar: NonNullable<AnyField["scalar"]> }, json: unknown): void {
    if (!isScalarJson(field.scalar, json)) {
      this.#expected(expectedScalar(field.scalar, json), json);
    }
  }

  #enum(desc: DescEnum, json: unknown): void {
    const isNull = desc.typeName === "google.protobuf.NullValue";
    if (json === null && isNull) {
      return;
    }
    const known =
      typeof json === "string"
        ? desc.values.some(({ name, jsonName }) => name === json || jsonName === json)
        : typeof json === "number" &&
          (desc.open ? isInt32(json) : desc.values.some(({ number }) => number === json));
    if (!known) {
      const names = desc.values.map(({ jsonName }) => jsonName);
      this.#expected(isNull ? "null" : oneOf(names, typeof json === "string" ? json : undefined), json);
    }
  }

  #any(json: unknown, depth: number): void {
    if (!isObject(json)) {
      this.#expected('an object with "@type" (google.protobuf.Any)', json);
      return;
    }
    const keys = Object.keys(json);
    if (keys.length === 0) {
      return;
    }
    const url = Object.hasOwn(json, "@type") ? json["@type"] : undefined;
    const name = typeof url === "string" ? url.slice(url.lastIndexOf("/") + 1) : "";
    const desc = name === "" ? undefined : this.#registry?.getMessage(name);
    if (desc === undefined) {
      this.#violations.within("@type", () => {
        if (url === undefined) {
          this.#violations.add("REQUIRED", 'is required, such as "type.googleapis.com/acme.v1.City"');
        } else if (name === "") {
          this.#expected('a type URL, such as "type.googleapis.com/acme.v1.City"', url);
        } else {
          this.#violations.add("UNKNOWN_TYPE", `the service does not describe a message type ${quote(name)}`);
        }
      });
      return;
    }
    if (!hasCustomJsonRepresentation(desc)) {
      if (this.#goDeeper(depth)) {
        this.#object(desc, json, depth + 1, "@type");
      }
      return;
    }
    if (!Object.hasOwn(json, "value")) {
      this.#violations.within("value", () =>
        this.#violations.add("REQUIRED", `is required: it holds the JSON form of ${desc.typeName}`),
      );
    }
    for (const key of keys) {
      if (key === "value") {
        this.#violations.within(key, () => this.message(desc, json[key], depth));
      } else if (key !== "@type") {
        this.#violations.within(key, () =>
          this.#violations.add("UNKNOWN_FIELD", `is no known field: ${desc.typeName} is in "value"`),
        );
      }
    }
  }

  #value(json: unknown, depth: number): void {
    if (!this.#goDeeper(depth)) {
      return;
    }
    const inside = depth + 1;
    if (Array.isArray(json)) {
      this.#items(json, inside);
    } else if (isObject(json)) {
      this.#members(json, inside);
    } else if (typeof json === "string") {
      this.#form(json.isWellFormed(), "valid Unicode", json);
    } else if (json !== null && typeof json !== "boolean") {
      this.#form(Number.isFinite(json), "a JSON value", json);
    }
  }

  #members(json: Readonly<Record<string, unknown>>, depth: number): void {
    for (const key of Object.keys(json)) {
      this.#violations.within(key, () => {
        if (!key.isWellFormed()) {
          this.#violations.add("INVALID_VALUE", "expected the name to be of valid Unicode");
        }
        this.#value(json[key], depth);
      });
    }
  }

  #items(json: readonly unknown[], depth: number): void {
    for (let i = 0; i < json.length; i++) {
      this.#violations.within(i, () => this.#value(json[i], depth));
    }
  }

  #goDeeper(depth: number): boolean {
    if (depth >= MAX_DEPTH) {
      this.#violations.add("TOO_DEEP", `nests deeper than ${MAX_DEPTH} messages`);
      return false;
    }
    return true;
  }

  #form(right: boolean, expected: string, json: unknown): void {
    if (!right) {
      this.#expected(expected, json);
    }
  }

  #expected(expected: string, json: unknown): void {
    this.#violations.add("INVALID_VALUE", `expected ${expected}, got ${describe(json)}`);
  }
}

/** Whether null is a value of the field instead of its absence. */
function takesNull({ message, enum: desc }: AnyField): boolean {
  return message?.typeName === "google.protobuf.Value" || desc?.typeName === "google.protobuf.NullValue";
}

function fieldList(names: readonly string[]): string {
  const shown = names
    .slice(0, 12)
    .map((name) => quote(name))
    .join(", ");
  return `${shown}${names.length > 12 ? ` and ${names.length - 12} more` : ""}`;
}

function isInt32(number: number): boolean {
  return Number.isInteger(number) && number >= -(2 ** 31) && number < 2 ** 31;
}

function isObject(json: unknown): json is Readonly<Record<string, unknown>> {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}
