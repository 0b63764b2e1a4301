import {
  type CelInput,
  type CelScalar,
  type CelType,
  type CelUint,
  type CelValue,
  celList,
  celMap,
  celType,
  isCelList,
  isCelType,
  isCelUint,
} from "@bufbuild/cel";
import { type JsonValue, toJson } from "@bufbuild/protobuf";
import { isReflectMessage, type ReflectMessage } from "@bufbuild/protobuf/reflect";

/**
 * A value while an expression is evaluated: those of CEL, but lists and maps are read from JSON only where an expression
 * looks. A JSON number without a fraction is an int, as far as a double holds it exactly; every other is a double.
 */
export type Value = Scalar | List | Dict;
export type Scalar =
  | null
  | boolean
  | string
  | bigint
  | number
  | CelUint
  | Uint8Array
  | CelType
  | ReflectMessage;

/** Keys of maps. Doubles and uints stand for the ints that they equal. */
export type Key = string | bigint | boolean;

export class List {
  readonly size: number;
  readonly #get: (index: number) => Value;

  private constructor(size: number, get: (index: number) => Value) {
    this.size = size;
    this.#get = get;
  }

  static of(items: readonly Value[]): List {
    // The index is checked by `get`.
    return new List(items.length, (index) => items[index] as Value);
  }

  static fromJson(items: readonly JsonValue[]): List {
    return new List(items.length, (index) => fromJson(items[index] as JsonValue));
  }

  /** Undefined: there is none. */
  get(index: number): Value | undefined {
    return Number.isInteger(index) && index >= 0 && index < this.size ? this.#get(index) : undefined;
  }

  *[Symbol.iterator](): Generator<Value> {
    for (let index = 0; index < this.size; index++) yield this.#get(index);
  }
}

export class Dict {
  readonly size: number;
  readonly #keys: () => Iterable<Key>;
  readonly #get: (key: Key) => Value | undefined;

  private constructor(size: number, keys: () => Iterable<Key>, get: (key: Key) => Value | undefined) {
    this.size = size;
    this.#keys = keys;
    this.#get = get;
  }

  static of(entries: ReadonlyMap<Key, Value>): Dict {
    return new Dict(
      entries.size,
      () => entries.keys(),
      (key) => entries.get(key),
    );
  }

  static fromJson(object: Readonly<Record<string, JsonValue>>): Dict {
    const keys = Object.keys(object);
    return new Dict(
      keys.length,
      () => keys,
      (key) => {
        const value = typeof key === "string" && Object.hasOwn(object, key) ? object[key] : undefined;
        return value === undefined ? undefined : fromJson(value);
      },
    );
  }

  keys(): Iterable<Key> {
    return this.#keys();
  }

  /** Undefined: there is none. */
  get(key: Key): Value | undefined {
    return this.#get(key);
  }
}

export function fromJson(json: JsonValue): Value {
  if (typeof json === "number")
    return Number.isSafeInteger(json) && !Object.is(json, -0) ? BigInt(json) : json;
  if (typeof json !== "object" || json === null) return json;
  return Array.isArray(json) ? List.fromJson(json) : Dict.fromJson(json);
}

/** The key that a value stands for; undefined: it cannot be one. */
export function asKey(value: Value): Key | undefined {
  if (typeof value === "string" || typeof value === "bigint" || typeof value === "boolean") return value;
  if (typeof value === "number") return Number.isInteger(value) ? BigInt(value) : undefined;
  return isCelUint(value) ? value.value : undefined;
}

/** The name of its type, as people know it. */
export function typeName(value: Value): string {
  if (value === null) return "null";
  if (value instanceof List) return "list";
  if (value instanceof Dict) return "map";
  if (isReflectMessage(value)) return value.desc.name.toLowerCase();
  return celType(value).name;
}

/** The same in a sentence, such as `an int`. */
export function wordType(value: Value): string {
  const name = typeName(value);
  if (name === "null") return name;
  return `${/^[aeio]/.test(name) ? "an" : "a"} ${name}`;
}

/** The same value for functions of the CEL library. `visit` is called for each value within. */
export function toCel(value: Value, visit: (value: Value) => void): CelValue {
  visit(value);
  if (value instanceof List) {
    const items: CelInput[] = [];
    for (const item of value) items.push(toCel(item, visit));
    return celList(items);
  }
  if (value instanceof Dict) {
    const entries = new Map<Key, CelInput>();
    for (const key of value.keys()) entries.set(key, toCel(value.get(key) ?? null, visit));
    return celMap(entries);
  }
  return value;
}

/** The same value from functions of the CEL library. Their lists hold scalars; none of them makes a map. */
export function fromCel(value: CelValue<(typeof CelScalar)["DYN"]>): Value {
  return isCelList(value) ? List.of(Array.from(value, fromCel)) : (value as Scalar);
}

/** The largest JSON that an expression may result in, in bytes; counted roughly. */
const MAX_RESULT_BYTES = 16 * 1024 * 1024;

/** How deep the JSON may nest that an expression results in. */
const MAX_RESULT_DEPTH = 1000;

/** A value that has no JSON, or too much of it. */
export class ResultError extends Error {
  override readonly name = "ResultError";
}

/** Counts the JSON that comes of one template. */
export class ResultSize {
  #bytes = 0;

  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > MAX_RESULT_BYTES) {
      throw new ResultError("gives more than 16 MiB of JSON; pick the fields that are needed");
    }
  }
}

/**
 * JSON of its own, which shares nothing with what the value came from. Ints beyond ±2^53 become strings, bytes base64,
 * timestamps and durations what they are in protobuf JSON, types their names.
 */
export function toResult(value: Value, size: ResultSize, depth = 0): JsonValue {
  if (depth > MAX_RESULT_DEPTH)
    throw new ResultError(`gives JSON that nests deeper than ${MAX_RESULT_DEPTH} levels`);
  if (value instanceof List) {
    const items: JsonValue[] = [];
    for (const item of value) items.push(toResult(item, size, depth + 1));
    size.add(2 + items.length);
    return items;
  }
  if (value instanceof Dict) {
    const entries: [string, JsonValue][] = [];
    for (const key of value.keys()) {
      const name = String(key);
      size.add(name.length + 4);
      entries.push([name, toResult(value.get(key) ?? null, size, depth + 1)]);
    }
    return Object.fromEntries(entries);
  }
  const json = scalarResult(value);
  size.add(typeof json === "string" ? Buffer.byteLength(json) + 2 : 8);
  return json;
}

function scalarResult(value: Scalar): JsonValue {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "bigint":
      return integer(value);
    case "number":
      if (Number.isFinite(value)) return value;
      throw new ResultError(`gives ${value}, which JSON does not have; was there a division by 0?`);
    default:
      break;
  }
  if (value === null) return null;
  if (isCelUint(value)) return integer(value.value);
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (isCelType(value)) return value.name;
  return toJson(value.desc, value.message);
}

function integer(value: bigint): JsonValue {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value.toString();
}
