import { ScalarType } from "@bufbuild/protobuf";
import { integerTypeRange } from "./integer-schema.ts";

/** A decimal number as JSON writes it, leading zeros allowed. */
const DECIMAL = /^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const WHOLE = /^-?\d+$/;
/** No 64-bit integer is longer; what is longer need not be converted to be refused. */
const MAX_DIGITS = 64;

/** Whether a JSON value is a form of a scalar that parsers have to accept. */
export function isScalarJson(scalar: ScalarType, json: unknown): boolean {
  switch (scalar) {
    case ScalarType.STRING:
      return typeof json === "string" && json.isWellFormed();
    case ScalarType.BOOL:
      return typeof json === "boolean";
    case ScalarType.BYTES:
      return typeof json === "string" && isBase64(json);
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return isFloat(scalar, json);
    default:
      return isInteger(integerTypeRange(scalar), json);
  }
}

/** Whether a JSON object's key is a form of a map key; undefined if not, else the one form that all of its forms share. */
export function canonicalMapKey(scalar: ScalarType, key: string): string | undefined {
  switch (scalar) {
    case ScalarType.STRING:
      return key.isWellFormed() ? key : undefined;
    case ScalarType.BOOL:
      return key === "true" || key === "false" ? key : undefined;
    default: {
      const number = wholeNumber(key);
      return number !== undefined && isWithin(integerTypeRange(scalar), number) ? String(number) : undefined;
    }
  }
}

/** What is expected of a scalar instead of a JSON value, in words. */
export function expectedScalar(scalar: ScalarType, json: unknown): string {
  switch (scalar) {
    case ScalarType.STRING:
      return typeof json === "string" ? "valid Unicode" : "a string";
    case ScalarType.BOOL:
      return "true or false";
    case ScalarType.BYTES:
      return "a Base64 string";
    case ScalarType.DOUBLE:
      return 'a number, "NaN", "Infinity" or "-Infinity"';
    case ScalarType.FLOAT:
      return 'a number of single precision, "NaN", "Infinity" or "-Infinity"';
    default: {
      const [low, high] = integerTypeRange(scalar);
      return `a whole number from ${low} to ${high}`;
    }
  }
}

function isInteger(range: readonly [bigint, bigint], json: unknown): boolean {
  if (typeof json === "number") {
    return Number.isInteger(json) && isWithin(range, BigInt(json));
  }
  if (typeof json !== "string" || json.length > MAX_DIGITS) {
    return false;
  }
  const whole = wholeNumber(json);
  if (whole !== undefined) {
    return isWithin(range, whole);
  }
  // Only 32-bit integers are read from notations with a point or exponent: others would lose digits on the way.
  const number = DECIMAL.test(json) && range[1] < 2n ** 32n ? Number(json) : Number.NaN;
  return Number.isInteger(number) && isWithin(range, BigInt(number));
}

function wholeNumber(text: string): bigint | undefined {
  return text.length <= MAX_DIGITS && WHOLE.test(text) ? BigInt(text) : undefined;
}

function isWithin([low, high]: readonly [bigint, bigint], value: bigint): boolean {
  return value >= low && value <= high;
}

function isFloat(scalar: ScalarType, json: unknown): boolean {
  if (json === "NaN" || json === "Infinity" || json === "-Infinity") {
    return true;
  }
  const number = typeof json === "string" && DECIMAL.test(json) ? Number(json) : json;
  return (
    typeof number === "number" &&
    Number.isFinite(number) &&
    (scalar === ScalarType.DOUBLE || Number.isFinite(Math.fround(number)))
  );
}

/** Both alphabets, with or without padding; white space is passed over, as tools that break lines put it there. */
function isBase64(text: string): boolean {
  const digits = text.replaceAll(/[\t\n\r ]/g, "");
  const padding = digits.endsWith("==") ? 2 : digits.endsWith("=") ? 1 : 0;
  const rest = digits.length - padding;
  return (
    !/[^A-Za-z0-9+/_-]/.test(digits.slice(0, rest)) &&
    rest % 4 !== 1 &&
    (padding === 0 || digits.length % 4 === 0)
  );
}
