import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { isObject, type UtcpTool } from "./document.ts";

export type HttpMethod = "GET" | "POST" | "PUT" | "DELETE" | "PATCH";

/** A UTCP call template of type `http`, checked. */
export interface HttpTemplate {
  readonly method: HttpMethod;
  readonly url: UrlTemplate;
  /** Of the request body, in lower case, such as `application/json`. */
  readonly contentType: string;
  /** Names in lower case. Values may hold variables. */
  readonly headers: ReadonlyMap<string, string>;
  readonly credential: Credential | undefined;
  /** The argument that is the whole body; the remaining ones then go into the query. */
  readonly bodyField: string | undefined;
  /** Arguments that are sent as headers of the same name. */
  readonly headerFields: readonly string[];
}

/** How a template authenticates. Values may hold variables. */
export type Credential =
  | {
      readonly kind: "api_key";
      readonly location: "header" | "query" | "cookie";
      readonly name: string;
      readonly value: string;
    }
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  /** A kind that we do not speak; only a header of the registration can stand in for it. */
  | { readonly kind: "unsupported"; readonly type: string };

/** An address with the names of the arguments in it, such as `/cities/{city}/forecast?days={days}`. */
export interface UrlTemplate {
  readonly text: string;
  /** Literal text and placeholders in turn, beginning and ending with text. */
  readonly literals: readonly string[];
  readonly parameters: readonly string[];
}

/** Why a template cannot be used. */
export interface TemplateProblem {
  /** In UPPER_SNAKE_CASE. */
  readonly reason: string;
  readonly message: string;
}

const METHODS: readonly HttpMethod[] = ["GET", "POST", "PUT", "DELETE", "PATCH"];
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/;
/** Bytes that cannot end a header early (RFC 9110, 5.5). */
export const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
/** Headers that frame or route a message: they are the connection's, not the manual's. */
const CONNECTION_HEADERS = new Set([
  "connection",
  "content-length",
  "expect",
  "host",
  "keep-alive",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** Checks a tool's call template. The problem returned names the template's field. */
export function parseHttpTemplate(tool: UtcpTool): HttpTemplate | TemplateProblem {
  try {
    return parse(tool);
  } catch (error) {
    if (error instanceof TemplateError) {
      return { reason: error.reason, message: error.message };
    }
    throw error;
  }
}

class TemplateError extends Error {
  readonly reason: string;

  constructor(reason: string, message: string) {
    super(message);
    this.reason = reason;
  }
}

function parse({ template, inputs }: UtcpTool): HttpTemplate {
  const type = template["call_template_type"];
  if (type !== "http") {
    throw new TemplateError(
      "UNSUPPORTED_CALL_TEMPLATE",
      `tool_call_template.call_template_type: ${JSON.stringify(type ?? null)} is not supported, only "http" is`,
    );
  }
  const declared = (text(template, "http_method") ?? "GET").toUpperCase();
  const method = METHODS.find((known) => known === declared);
  if (!method) {
    throw invalid("http_method", `"${declared}" is none of ${METHODS.join(", ")}`);
  }
  const contentType = (text(template, "content_type") ?? "application/json").trim().toLowerCase();
  if (!HEADER_VALUE.test(contentType) || contentType.startsWith("multipart/")) {
    throw invalid("content_type", `"${contentType}" is not supported`);
  }
  const headerFields = list(template, "header_fields");
  for (const field of headerFields) {
    checkHeaderName("header_fields", field);
  }
  // An argument of the name `body` is the body unless the manual says otherwise: the default of the specification.
  const bodyField = template["body_field"] === null ? undefined : (text(template, "body_field") ?? "body");
  return {
    method,
    url: parseUrl(text(template, "url"), inputs),
    contentType,
    headers: parseHeaders(template["headers"]),
    credential: parseCredential(template["auth"]),
    bodyField,
    headerFields,
  };
}

function parseUrl(url: string | undefined, inputs: JsonValue): UrlTemplate {
  if (!url || url.length > 4096 || /[\s\p{Cc}\\]/u.test(url)) {
    throw badUrl(`it must be set, at most 4,096 characters long and without spaces`);
  }
  const properties = isObject(inputs) && isObject(inputs["properties"]) ? inputs["properties"] : {};
  const literals: string[] = [];
  const parameters: string[] = [];
  let end = 0;
  // `${name}` is a placeholder where the tool has such an argument, and a variable otherwise.
  for (const match of url.matchAll(/\$?\{([^{}]*)\}/g)) {
    const name = match[1] ?? "";
    if (match[0].startsWith("$") && !Object.hasOwn(properties, name)) {
      throw urlVariable(match[0]);
    }
    if (!/^[\w.-]+$/.test(name)) {
      throw badUrl(`"${match[0]}" is not the name of an argument`);
    }
    const literal = url.slice(end, match.index);
    if (/%[0-9a-f]?$/i.test(literal)) {
      throw badUrl(`"${match[0]}" must not complete a percent-encoded character`);
    }
    literals.push(literal);
    parameters.push(name);
    end = match.index + match[0].length;
  }
  literals.push(url.slice(end));
  const variable = literals.join(" ").match(/\$[A-Z_][A-Z0-9_]*/);
  if (variable) {
    throw urlVariable(variable[0]);
  }
  checkAuthority(literals[0] ?? "", parameters.length > 0);
  const template = { text: url, literals, parameters };
  const sample = URL.parse(
    expandUrl(template, () => "x"),
    "http://relative.invalid/",
  );
  if (!sample || !/^https?:$/.test(sample.protocol)) {
    throw badUrl(`"${url}" is not an http or https address`);
  }
  if (sample.username || sample.password) {
    throw badUrl("it must not hold a user name or password: use auth");
  }
  return template;
}

/** Arguments must not choose the host: the text before the first placeholder has to reach into the path. */
function checkAuthority(prefix: string, hasParameters: boolean): void {
  const absolute = /^([a-z][a-z0-9+.-]*:|\/\/)/i.test(prefix);
  if (hasParameters && absolute && !/^(https?:)?\/\/[^/?#]+[/?]/i.test(prefix)) {
    throw badUrl("placeholders are only allowed in the path and the query");
  }
}

/** Puts percent-encoded values in the place of the parameters. */
export function expandUrl(
  { literals, parameters }: UrlTemplate,
  value: (parameter: string) => string,
): string {
  return literals
    .map((literal, index) => {
      const parameter = parameters[index];
      return parameter === undefined ? literal : literal + encodeURIComponent(value(parameter));
    })
    .join("");
}

/** What relative addresses of a service start from: its endpoint, as if that were a folder. */
export function baseOf(endpoint: string): string {
  return endpoint.endsWith("/") ? endpoint : `${endpoint}/`;
}

function parseHeaders(value: JsonValue | undefined): ReadonlyMap<string, string> {
  const headers = new Map<string, string>();
  if (value === undefined || value === null) {
    return headers;
  }
  if (!isObject(value)) {
    throw invalid("headers", "it must be an object");
  }
  for (const [name, content] of Object.entries(value)) {
    checkHeaderName("headers", name);
    if (typeof content !== "string" || !HEADER_VALUE.test(content)) {
      throw invalid(`headers.${name}`, "it must be a string that can be sent as a header");
    }
    headers.set(name.toLowerCase(), content);
  }
  return headers;
}

function parseCredential(auth: JsonValue | undefined): Credential | undefined {
  if (auth === undefined || auth === null) {
    return undefined;
  }
  if (!isObject(auth)) {
    throw invalid("auth", "it must be an object");
  }
  const type = text(auth, "auth_type", "auth.");
  switch (type) {
    case "api_key":
      return parseApiKey(auth);
    case "basic": {
      const username = text(auth, "username", "auth.");
      const password = text(auth, "password", "auth.");
      if (username === undefined || password === undefined) {
        throw invalid("auth", "username and password must be set");
      }
      return { kind: "basic", username, password };
    }
    default:
      return { kind: "unsupported", type: type ?? "" };
  }
}

function parseApiKey(auth: JsonObject): Credential {
  const value = text(auth, "api_key", "auth.");
  const name = text(auth, "var_name", "auth.") ?? "X-Api-Key";
  const location = text(auth, "location", "auth.") ?? "header";
  if (!value || !HEADER_VALUE.test(value)) {
    throw invalid("auth.api_key", "it must be set");
  }
  switch (location) {
    case "header":
      checkHeaderName("auth.var_name", name);
      return { kind: "api_key", location, name: name.toLowerCase(), value };
    case "cookie":
      if (!TOKEN.test(name)) {
        throw invalid("auth.var_name", `"${name}" is not the name of a cookie`);
      }
      return { kind: "api_key", location, name, value };
    case "query":
      return { kind: "api_key", location, name, value };
    default:
      throw invalid("auth.location", `"${location}" is none of header, query, cookie`);
  }
}

function checkHeaderName(field: string, name: string): void {
  if (!TOKEN.test(name) || CONNECTION_HEADERS.has(name.toLowerCase())) {
    throw invalid(field, `"${name}" cannot be sent as a header`);
  }
}

function text(object: JsonObject, field: string, prefix = ""): string | undefined {
  const value = object[field] ?? undefined;
  if (value !== undefined && typeof value !== "string") {
    throw invalid(prefix + field, "it must be a string");
  }
  return value;
}

function list(object: JsonObject, field: string): readonly string[] {
  const value = object[field] ?? [];
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
    throw invalid(field, "it must be a list of strings");
  }
  return value;
}

function invalid(field: string, message: string): TemplateError {
  return new TemplateError("INVALID_CALL_TEMPLATE", `tool_call_template.${field}: ${message}`);
}

function badUrl(message: string): TemplateError {
  return new TemplateError("INVALID_URL", `tool_call_template.url: ${message}`);
}

function urlVariable(variable: string): TemplateError {
  return new TemplateError(
    "UNRESOLVED_VARIABLE",
    `tool_call_template.url: the variable ${variable} has no value; variables are only filled in headers and auth`,
  );
}
