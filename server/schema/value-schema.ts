import type { DescEnum, DescMessage, JsonObject } from "@bufbuild/protobuf";
import { type Duration, isWrapperDesc, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import type { FieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { conjoin, type Fragment, fragment, noneOfValues, oneOfValues, reference } from "./fragment.ts";
import { type RuleSet, valueRules } from "./rules.ts";
import { scalarFragment } from "./scalar-schema.ts";

/** The JSON form of an enum under the rules of its field. */
export function enumFragment(desc: DescEnum, rules: FieldRules | undefined, nonZero: boolean): Fragment {
  if (desc.typeName === "google.protobuf.NullValue") {
    return fragment({ type: "null" });
  }
  const set = valueRules(rules, "enum");
  if (set === undefined && !nonZero) {
    return reference(desc);
  }
  const zero = desc.values[0]?.number ?? 0;
  const constant = set?.size("const");
  const choices = set?.list("in").map(Number) ?? [];
  const excluded = set?.list("notIn").map(Number) ?? [];
  const refused = nonZero ? [...excluded, zero] : excluded;
  const allowed = (number: number) =>
    (constant === undefined || number === constant) &&
    (choices.length === 0 || choices.includes(number)) &&
    !refused.includes(number);
  const names = desc.values.filter(({ number }) => allowed(number)).map(({ jsonName }) => jsonName);
  const zeroAllowed =
    (constant ?? zero) === zero &&
    (choices.length === 0 || choices.includes(zero)) &&
    !excluded.includes(zero);
  if (!desc.open || set?.value("definedOnly") === true) {
    return fragment({ type: "string", ...oneOfValues(names) }, { zeroAllowed });
  }
  const declared = new Set(desc.values.map(({ number }) => number));
  const numbers = constant === undefined ? choices : [constant];
  if (numbers.length > 0) {
    const undeclared = numbers.filter((number) => allowed(number) && !declared.has(number));
    return fragment(oneOfValues([...names, ...undeclared]), { zeroAllowed });
  }
  const number = conjoin(anyNumber, noneOfValues(refused));
  return fragment({ anyOf: [{ type: "string", ...oneOfValues(names) }, number] }, { zeroAllowed });
}

/** What `$defs` holds for an enum. */
export function enumDefinition(desc: DescEnum): JsonObject {
  const names: JsonObject = { type: "string", enum: desc.values.map(({ jsonName }) => jsonName) };
  // A name may be newer than the descriptor: open enums then come as numbers.
  return desc.open ? { anyOf: [names, anyNumber] } : names;
}

const anyNumber: JsonObject = { type: "integer", minimum: -(2 ** 31), maximum: 2 ** 31 - 1 };

/** The JSON form of a message under the rules of its field. */
export function messageFragment(
  desc: DescMessage,
  rules: FieldRules | undefined,
  nonZero: boolean,
): Fragment {
  switch (desc.typeName) {
    case "google.protobuf.Struct":
      return fragment({ type: "object", description: "Any JSON object." });
    case "google.protobuf.ListValue":
      return fragment({ type: "array", description: "Any JSON array." });
    case "google.protobuf.Value":
      return fragment({ description: "Any JSON value, null included." });
    case "google.protobuf.Any":
      return anyFragment(desc, valueRules(rules, "any"));
    case "google.protobuf.Duration":
      return { ...reference(desc), notes: spanNotes(valueRules(rules, "duration"), durationText) };
    case "google.protobuf.Timestamp":
      return { ...reference(desc), notes: timestampNotes(valueRules(rules, "timestamp")) };
    case "google.protobuf.FieldMask":
      return { ...reference(desc), notes: maskNotes(valueRules(rules, "fieldMask")) };
    default: {
      const [value] = desc.fields;
      return isWrapperDesc(desc) && value?.fieldKind === "scalar"
        ? scalarFragment(value.scalar, rules, nonZero)
        : reference(desc);
    }
  }
}

/** The schema of a message that has a JSON form of its own; undefined for all others. */
export function wellKnownFragment(desc: DescMessage): Fragment | undefined {
  const inline = messageFragment(desc, undefined, false);
  if (inline.uses[0] !== desc) {
    return inline;
  }
  const schema = definedForm(desc);
  return schema && fragment(schema);
}

/** What `$defs` holds for the well-known types that are not written where they are used. */
function definedForm(desc: DescMessage): JsonObject | undefined {
  switch (desc.typeName) {
    case "google.protobuf.Any":
      return {
        type: "object",
        description:
          'A message of any type: "@type" is its type URL, such as type.googleapis.com/acme.v1.City, beside its ' +
          'fields. A type that has a JSON form of its own is in "value".',
        properties: { "@type": { type: "string", pattern: "[^/]$" } },
        if: { minProperties: 1 },
        // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
        then: { required: ["@type"] },
      };
    case "google.protobuf.Timestamp":
      return {
        type: "string",
        description: "A time in RFC 3339, such as 2030-01-31T12:00:00Z.",
        format: "date-time",
        pattern: TIMESTAMP,
      };
    case "google.protobuf.Duration":
      return {
        type: "string",
        description: "Seconds with at most nine decimals and the suffix s, such as 1.5s.",
        pattern: DURATION,
      };
    case "google.protobuf.FieldMask":
      return {
        type: "string",
        description: "Paths of fields in lowerCamelCase, separated by commas, such as city,wind.speed.",
        pattern: "^[^_]*$",
      };
    default:
      return undefined;
  }
}

const DAY = "(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])";
const CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?";
/**
 * Years 0001 to 9999. With an offset only 1000 to 8999, so that no instant is beyond what a Timestamp can hold; the
 * parser checks the instant itself.
 */
const TIMESTAMP =
  `^(?:(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-${DAY}T${CLOCK}Z` +
  `|[1-8][0-9]{3}-${DAY}T${CLOCK}[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$`;
/** At most 315,576,000,000 seconds either way, which is 10,000 years. */
const DURATION =
  "^-?(?:0|[1-9][0-9]{0,10}|[12][0-9]{11}|30[0-9]{10}|31[0-4][0-9]{9}|315[0-4][0-9]{8}|3155[0-6][0-9]{7}" +
  "|31557[0-5][0-9]{6}|315576000000)(?:\\.[0-9]{1,9})?s$";

function anyFragment(desc: DescMessage, rules: RuleSet | undefined): Fragment {
  const base = reference(desc);
  const allowed = rules?.list("in").filter((value) => typeof value === "string") ?? [];
  const refused = rules?.list("notIn").filter((value) => typeof value === "string") ?? [];
  let schema = base.schema;
  if (allowed.length > 0) {
    schema = conjoin(schema, { properties: { "@type": { enum: allowed } }, required: ["@type"] });
  }
  if (refused.length > 0) {
    schema = conjoin(schema, { properties: { "@type": { not: { enum: refused } } } });
  }
  return { ...base, schema };
}

function timestampNotes(rules: RuleSet | undefined): string[] {
  const within = rules?.value("within");
  return [
    ...spanNotes(rules, (value: Timestamp) => timestampDate(value).toISOString()),
    ...(rules?.value("ltNow") === true ? ["In the past."] : []),
    ...(rules?.value("gtNow") === true ? ["In the future."] : []),
    ...(within === undefined ? [] : [`Within ${durationText(within as Duration)} of now.`]),
  ];
}

/** Rules about instants and spans of time; `T` is what `buf.validate` declares for them. */
function spanNotes<T>(rules: RuleSet | undefined, print: (value: T) => string): string[] {
  if (rules === undefined) {
    return [];
  }
  const words = { const: "Is", gt: "More than", gte: "At least", lt: "Less than", lte: "At most" };
  const notes = Object.entries(words).flatMap(([rule, word]) => {
    const value = rules.value(rule);
    return value === undefined ? [] : [`${word} ${print(value as T)}.`];
  });
  const allowed = rules.list("in").map((value) => print(value as T));
  const refused = rules.list("notIn").map((value) => print(value as T));
  return [
    ...notes,
    ...(allowed.length > 0 ? [`One of ${allowed.join(", ")}.`] : []),
    ...(refused.length > 0 ? [`None of ${refused.join(", ")}.`] : []),
  ];
}

function durationText({ seconds, nanos }: Duration): string {
  return `${Number(seconds) + nanos / 1e9}s`;
}

function maskNotes(rules: RuleSet | undefined): string[] {
  const allowed = rules?.list("in") ?? [];
  const refused = rules?.list("notIn") ?? [];
  return [
    ...(allowed.length > 0 ? [`Only these paths: ${allowed.join(", ")}.`] : []),
    ...(refused.length > 0 ? [`None of these paths: ${refused.join(", ")}.`] : []),
  ];
}
