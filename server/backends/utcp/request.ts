import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { type FieldViolation, invalidArgument } from "@toolplane/framework";
import { expandUrl, HEADER_VALUE, type HttpTemplate } from "./template.ts";

/** The part of a request that depends on the arguments only. */
export interface RequestPlan {
  /** Absolute, or relative to the endpoint. */
  readonly url: string;
  readonly query: readonly (readonly [string, string])[];
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string | undefined;
}

/**
 * Places each argument: headers and body as the template names them, the path, and for the remaining ones the query of
 * GET and DELETE and the body of POST, PUT and PATCH; the query too when one argument is the whole body.
 *
 * Arguments fill the places that the template has for them and cannot make new ones: they are percent-encoded, may not
 * add, remove or climb path segments, and cannot end a header. Throws `invalidArgument` with paths below `path`.
 */
export function planRequest(template: HttpTemplate, args: JsonObject, path: string): RequestPlan {
  const violations: FieldViolation[] = [];
  const left = new Map(Object.entries(args));
  const headers = planHeaders(template, args, path, violations);
  for (const field of template.headerFields) {
    left.delete(field);
  }
  const url = planUrl(template, args, path, violations);
  for (const parameter of template.url.parameters) {
    left.delete(parameter);
  }
  const body = planBody(template, left, path, violations);
  if (violations.length > 0) {
    throw invalidArgument(violations);
  }
  if (body !== undefined) {
    headers.set("content-type", template.contentType);
  }
  const query = [...left].flatMap(([name, value]) => pairs(name, value));
  return { url, query, headers, body };
}

function planHeaders(
  { headerFields }: HttpTemplate,
  args: JsonObject,
  path: string,
  violations: FieldViolation[],
): Map<string, string> {
  const headers = new Map<string, string>();
  for (const field of headerFields) {
    const value = Object.hasOwn(args, field) ? args[field] : undefined;
    if (value === undefined || value === null) {
      continue;
    }
    const text = scalar(value);
    if (text === undefined || !HEADER_VALUE.test(text)) {
      violations.push({
        field: `${path}.${field}`,
        description: "is sent as a header: it must be one line of Latin-1 text, a number or a boolean",
        reason: "INVALID_HEADER_VALUE",
      });
    } else {
      headers.set(field.toLowerCase(), text);
    }
  }
  return headers;
}

function planUrl(
  { url }: HttpTemplate,
  args: JsonObject,
  path: string,
  violations: FieldViolation[],
): string {
  const before = violations.length;
  const values = new Map<string, string>();
  const inPath = url.text.split("?")[0] ?? "";
  for (const parameter of url.parameters) {
    const value = Object.hasOwn(args, parameter) ? scalar(args[parameter] ?? null) : undefined;
    const strays = inPath.includes(`{${parameter}}`) && /^\.{0,2}$/.test(value ?? "");
    if (value === undefined || strays || !value.isWellFormed()) {
      violations.push({
        field: `${path}.${parameter}`,
        description: 'is part of the address: set it to text other than "." and "..", a number or a boolean',
        reason: "INVALID_PATH_VALUE",
      });
    } else {
      values.set(parameter, value);
    }
  }
  if (violations.length > before) {
    return url.text;
  }
  return expandUrl(url, (parameter) => values.get(parameter) ?? "");
}

/** Takes what it sends out of `left`. */
function planBody(
  { method, bodyField, contentType, url }: HttpTemplate,
  left: Map<string, JsonValue>,
  path: string,
  violations: FieldViolation[],
): string | undefined {
  if (method === "GET") {
    return undefined;
  }
  if (bodyField !== undefined && left.has(bodyField) && !url.parameters.includes(bodyField)) {
    const value = left.get(bodyField) ?? null;
    left.delete(bodyField);
    return encodeBody(contentType, value, `${path}.${bodyField}`, violations);
  }
  if (method === "DELETE") {
    return undefined;
  }
  const rest = Object.fromEntries(left);
  left.clear();
  return encodeBody(contentType, rest, path, violations);
}

function encodeBody(
  contentType: string,
  value: JsonValue,
  path: string,
  violations: FieldViolation[],
): string {
  if (/^application\/(.+\+)?json\b/.test(contentType)) {
    return JSON.stringify(value);
  }
  if (
    contentType.startsWith("application/x-www-form-urlencoded") &&
    typeof value === "object" &&
    value !== null
  ) {
    const fields = Object.entries(value).flatMap(([name, item]) => pairs(name, item));
    return new URLSearchParams(fields).toString();
  }
  if (typeof value === "string") {
    return value;
  }
  violations.push({
    field: path,
    description: `cannot be sent as ${contentType}: only a text argument that is the whole body can`,
    reason: "INVALID_BODY",
  });
  return "";
}

/** A list repeats its name, null is left out, an object is written as JSON. */
function pairs(name: string, value: JsonValue): [string, string][] {
  if (value === null) {
    return [];
  }
  if (Array.isArray(value)) {
    return value.flatMap((item): [string, string][] => [[name, scalar(item) ?? JSON.stringify(item)]]);
  }
  return [[name, scalar(value) ?? JSON.stringify(value)]];
}

function scalar(value: JsonValue): string | undefined {
  return typeof value === "object" ? undefined : String(value);
}
