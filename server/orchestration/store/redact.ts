import {
  clone,
  createRegistry,
  type DescField,
  type DescMessage,
  isMessage,
  type JsonValue,
  type Message,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { type Any, AnySchema, anyPack, anyUnpack } from "@bufbuild/protobuf/wkt";
import { file_google_rpc_error_details } from "@toolplane/gen/google/rpc/error_details_pb.js";

/** What stands where a secret was. */
const MASK = "***";
/** Shorter ones would be found in words that are none. */
const MIN_SECRET_LENGTH = 6;

/** Takes the values of secrets out of what is told to people. Nothing is copied where there is no secret in it. */
export interface Redactor {
  text(text: string): string;
  /** How many characters at the end of a text may be the beginning of a secret, of which the rest is still to come. */
  unfinished(text: string): number;
  /** Names in objects too. */
  json(value: JsonValue): JsonValue;
  /** In all its texts, however deep; what cannot be looked into is left out where it holds a secret. */
  message<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): MessageShape<Desc>;
}

/** @param secrets asked each time, since secrets change */
export function createRedactor(secrets: () => readonly string[]): Redactor {
  let known: readonly string[] = [];
  let matcher: Matcher | undefined;

  function current(): Matcher | undefined {
    const now = secrets();
    if (now.length !== known.length || now.some((secret, index) => secret !== known[index])) {
      known = [...now];
      matcher = matcherOf(known);
    }
    return matcher;
  }

  return {
    text: (text) => current()?.replace(text) ?? text,
    unfinished: (text) => current()?.unfinished(text) ?? 0,
    json: (value) => {
      const present = current();
      return present === undefined ? value : redactJson(value, present);
    },
    message(schema, message) {
      const present = current();
      if (present === undefined || !present.isIn(toBinary(schema, message))) {
        return message;
      }
      const copy = clone(schema, message);
      redactMessage(schema, copy, present);
      return copy;
    },
  };
}

interface Matcher {
  replace(text: string): string;
  unfinished(text: string): number;
  isIn(bytes: Uint8Array): boolean;
}

/** Undefined: there is nothing to look for. */
function matcherOf(secrets: readonly string[]): Matcher | undefined {
  // Of secrets that begin alike, the longer one is looked for first.
  const wanted = [
    ...new Set(secrets.filter(({ length }) => length >= MIN_SECRET_LENGTH).flatMap(spellings)),
  ].toSorted((a, b) => b.length - a.length);
  if (wanted.length === 0) {
    return undefined;
  }
  const pattern = new RegExp(wanted.map((secret) => RegExp.escape(secret)).join("|"), "g");
  const encoded = wanted.map((secret) => Buffer.from(secret));
  return {
    replace: (text) => text.replace(pattern, MASK),
    unfinished: (text) => Math.max(...wanted.map((secret) => overlap(text, secret))),
    isIn(bytes) {
      const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      return encoded.some((secret) => buffer.includes(secret));
    },
  };
}

/** A secret as it is, and as it stands in JSON, in URLs and forms, and in base64, as in `Authorization: Basic`. */
function spellings(secret: string): string[] {
  const bytes = Buffer.from(secret);
  const inUrl = encodeURIComponent(secret.toWellFormed());
  return [
    secret,
    JSON.stringify(secret).slice(1, -1),
    inUrl,
    inUrl.replaceAll(/%[0-9A-F]{2}/g, (escaped) => escaped.toLowerCase()),
    new URLSearchParams({ "": secret }).toString().slice(1),
    bytes.toString("base64").replace(/=+$/, ""),
    bytes.toString("base64url"),
  ];
}

/** The longest end of a text that a secret begins with, and goes on after. */
function overlap(text: string, secret: string): number {
  for (let length = Math.min(text.length, secret.length - 1); length > 0; length--) {
    if (text.endsWith(secret.slice(0, length))) {
      return length;
    }
  }
  return 0;
}

function redactJson(value: JsonValue, matcher: Matcher): JsonValue {
  if (typeof value === "string") {
    return matcher.replace(value);
  }
  if (Array.isArray(value)) {
    return value.map((item) => redactJson(item, matcher));
  }
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [matcher.replace(name), redactJson(item, matcher)]),
    );
  }
  return value;
}

/** Changes the message itself, which is seen as an object with values of any kind under the names of its fields. */
function redactMessage(schema: DescMessage, message: Message, matcher: Matcher): void {
  if (isMessage(message, AnySchema)) {
    redactAny(message, matcher);
    return;
  }
  const fields = message as unknown as Record<string, unknown>;
  for (const member of schema.members) {
    const value = fields[member.localName];
    if (value === undefined) {
      continue;
    }
    if (member.kind === "field") {
      fields[member.localName] = redactField(member, value, matcher);
    } else {
      const chosen = value as { case: string | undefined; value?: unknown };
      const field = member.fields.find(({ localName }) => localName === chosen.case);
      if (field !== undefined) {
        chosen.value = redactField(field, chosen.value, matcher);
      }
    }
  }
}

function redactField(field: DescField, value: unknown, matcher: Matcher): unknown {
  switch (field.fieldKind) {
    case "list":
      return (value as unknown[]).map((item) => redactValue(field.message, item, matcher));
    case "map":
      return Object.fromEntries(
        Object.entries(value as Record<string, unknown>).map(([key, item]) => [
          matcher.replace(key),
          redactValue(field.message, item, matcher),
        ]),
      );
    default:
      return redactValue(field.message, value, matcher);
  }
}

/** A field of type Struct is plain JSON. */
function redactValue(schema: DescMessage | undefined, value: unknown, matcher: Matcher): unknown {
  if (typeof value === "string") {
    return matcher.replace(value);
  }
  if (value instanceof Uint8Array) {
    return matcher.isIn(value) ? new Uint8Array() : value;
  }
  if (schema === undefined) {
    return value;
  }
  if (!isMessage(value)) {
    return redactJson(value as JsonValue, matcher);
  }
  redactMessage(schema, value, matcher);
  return value;
}

const errorDetails = createRegistry(file_google_rpc_error_details);

function redactAny(any: Any, matcher: Matcher): void {
  if (!matcher.isIn(any.value)) {
    return;
  }
  const packed = anyUnpack(any, errorDetails);
  const schema = packed && errorDetails.getMessage(packed.$typeName);
  if (packed === undefined || schema === undefined) {
    any.value = new Uint8Array();
    return;
  }
  redactMessage(schema, packed, matcher);
  any.value = anyPack(schema, packed).value;
}
