import {
  type DescMessage,
  fromJson,
  type JsonValue,
  type MessageShape,
  type Registry,
} from "@bufbuild/protobuf";
import { invalidArgument } from "@toolplane/framework";
import { checkMessageJson } from "./check-message.ts";
import { checkRules, type RuleWarning } from "./validate-rules.ts";
import { Violations } from "./violations.ts";
import type { FieldNames } from "./wording.ts";

export interface ParseMessageOptions {
  /** Where types in google.protobuf.Any, and extensions, are looked up: the service's own descriptors. */
  readonly registry?: Registry | undefined;
  /** The path of the value in the request, such as `arguments`. Default: the empty path. */
  readonly path?: string | undefined;
  /**
   * Which of a field's two names is told: `json`, such as `pageSize`, or `proto`, such as `page_size`. A field that was
   * given is named as it was given, if only its form is wrong. Default: `json`.
   */
  readonly names?: FieldNames | undefined;
  /** Told of protovalidate rules that cannot be checked and are skipped. */
  readonly onWarning?: RuleWarning | undefined;
}

/**
 * Reads a message from its Protobuf JSON form. Accepts what the specification demands of parsers: both names of fields,
 * null for an absent field, numbers in strings, numbers of enum values, both alphabets of Base64.
 *
 * Required fields of proto2 have to be there, and the message has to obey the protovalidate rules of its descriptor.
 *
 * @throws DomainError INVALID_ARGUMENT with all that is wrong, by field.
 */
export function parseMessageJson<Desc extends DescMessage>(
  desc: Desc,
  json: JsonValue,
  { registry, path = "", names = "json", onWarning }: ParseMessageOptions = {},
): MessageShape<Desc> {
  const malformed = Violations.of(path, (found) => checkMessageJson(desc, json, registry, found, names));
  if (malformed.length > 0) {
    throw invalidArgument(malformed);
  }
  const message = read(desc, json, registry, path);
  const broken = Violations.of(path, (found) => checkRules(desc, message, registry, found, onWarning, names));
  if (broken.length > 0) {
    throw invalidArgument(broken);
  }
  return message;
}

function read<Desc extends DescMessage>(
  desc: Desc,
  json: JsonValue,
  registry: Registry | undefined,
  path: string,
): MessageShape<Desc> {
  try {
    return fromJson(desc, json, registry === undefined ? {} : { registry });
  } catch (error) {
    // The check above is meant to find everything first; what it misses is still the caller's mistake.
    const description = error instanceof Error ? error.message : String(error);
    throw invalidArgument([{ field: path, description, reason: "INVALID_VALUE" }], error);
  }
}
