import { type DescEnum, type DescField, getOption, hasOption, type JsonValue } from "@bufbuild/protobuf";
import { field as fieldOption } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { leadingComment } from "./comments.ts";
import { isShallow } from "./json.ts";

export interface FieldDocumentation {
  readonly description: string;
  readonly examples: JsonValue[];
}

/** What the author of a field says about it: the option `toolplane.annotations.v1.field`, else its comment. */
export function fieldDocumentation(field: DescField): FieldDocumentation {
  const annotation = readAnnotation(field);
  return {
    description: annotation?.description || (leadingComment(field) ?? ""),
    examples: (annotation?.examples ?? []).flatMap(parseExample),
  };
}

function readAnnotation(field: DescField) {
  try {
    return hasOption(field, fieldOption) ? getOption(field, fieldOption) : undefined;
  } catch {
    // Another option that has the same number.
    return undefined;
  }
}

/** Examples nest at most this deep, so that a schema stays convertible to google.protobuf.Struct. */
const MAX_EXAMPLE_DEPTH = 20;

/** An example that is no JSON, or absurdly deep, is of no use to a caller. */
function parseExample(example: string): JsonValue[] {
  try {
    const value = JSON.parse(example) as JsonValue;
    return isShallow(value, MAX_EXAMPLE_DEPTH) ? [value] : [];
  } catch {
    return [];
  }
}

/** The comment of an enum, with a line for each value that has a comment. */
export function enumDescription(desc: DescEnum): string {
  const values = desc.values.flatMap((value) => {
    const [first] = leadingComment(value)?.split("\n") ?? [];
    return first === undefined ? [] : [`${value.jsonName}: ${first}`];
  });
  return [leadingComment(desc), ...values].filter(Boolean).join("\n");
}
