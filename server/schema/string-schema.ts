import type { JsonObject } from "@bufbuild/protobuf";
import { conjoin, type Fragment, fragment } from "./fragment.ts";
import { literal, toEcmaScript } from "./regular-expression.ts";
import type { RuleSet } from "./rules.ts";

/** Formats of protovalidate that have a counterpart in JSON Schema or an exact pattern. */
const formats: Readonly<Record<string, JsonObject>> = {
  email: { format: "email" },
  hostname: { format: "hostname" },
  ip: { anyOf: [{ format: "ipv4" }, { format: "ipv6" }] },
  ipv4: { format: "ipv4" },
  ipv6: { format: "ipv6" },
  uri: { format: "uri" },
  uriRef: { format: "uri-reference" },
  address: { anyOf: [{ format: "hostname" }, { format: "ipv4" }, { format: "ipv6" }] },
  uuid: { format: "uuid", pattern: "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$" },
  tuuid: { pattern: "^[0-9a-fA-F]{32}$" },
  ulid: { pattern: "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$" },
};

/** What the formats without a counterpart look like. */
const formatNotes: Readonly<Record<string, string>> = {
  ipWithPrefixlen: "An IP address with prefix length, such as 192.0.2.7/24.",
  ipv4WithPrefixlen: "An IPv4 address with prefix length, such as 192.0.2.7/24.",
  ipv6WithPrefixlen: "An IPv6 address with prefix length, such as 2001:db8::7/64.",
  ipPrefix: "An IP prefix, such as 192.0.2.0/24.",
  ipv4Prefix: "An IPv4 prefix, such as 192.0.2.0/24.",
  ipv6Prefix: "An IPv6 prefix, such as 2001:db8::/64.",
  hostAndPort: "A host name or IP address with port, such as example.com:443.",
  protobufFqn: "A fully qualified Protobuf name, such as acme.weather.v1.Forecast.",
  protobufDotFqn: "A fully qualified Protobuf name with leading dot, such as .acme.weather.v1.Forecast.",
  wellKnownRegex: "Allowed in an HTTP header.",
};

/** The formats that the empty string has. */
const emptyFormats = new Set(["uriRef", "wellKnownRegex"]);

export function stringFragment(rules: RuleSet | undefined, nonZero: boolean): Fragment {
  let schema: JsonObject = { type: "string" };
  const notes: string[] = [];
  let zeroAllowed = true;
  const add = (keywords: JsonObject, allowsEmpty: boolean) => {
    schema = conjoin(schema, keywords);
    zeroAllowed &&= allowsEmpty;
  };
  if (rules !== undefined) {
    // Lengths count code points in both languages.
    const length = rules.size("len");
    const least = length ?? rules.size("minLen");
    const most = length ?? rules.size("maxLen");
    if (least !== undefined) {
      add({ minLength: least }, least === 0);
    }
    if (most !== undefined) {
      add({ maxLength: most }, true);
    }
    const lengthBytes = rules.size("lenBytes");
    const leastBytes = lengthBytes ?? rules.size("minBytes");
    const mostBytes = lengthBytes ?? rules.size("maxBytes");
    // A code point has one to four bytes in UTF-8, so these bounds are necessary; the note says the rest.
    if (leastBytes !== undefined) {
      add({ minLength: Math.max(Math.ceil(leastBytes / 4), least ?? 0) }, leastBytes === 0);
      notes.push(`At least ${leastBytes} bytes in UTF-8.`);
    }
    if (mostBytes !== undefined) {
      add({ maxLength: Math.min(mostBytes, most ?? mostBytes) }, true);
      notes.push(`At most ${mostBytes} bytes in UTF-8.`);
    }
    const pattern = text(rules.value("pattern"));
    if (pattern !== undefined) {
      const translated = toEcmaScript(pattern);
      if (translated === undefined) {
        notes.push(`Matches the regular expression (RE2) ${pattern}`);
      } else {
        add({ pattern: translated }, new RegExp(translated, "u").test(""));
      }
    }
    const prefix = text(rules.value("prefix"));
    if (prefix !== undefined) {
      add({ pattern: `^${literal(prefix)}` }, prefix === "");
    }
    const suffix = text(rules.value("suffix"));
    if (suffix !== undefined) {
      add({ pattern: `${literal(suffix)}$` }, suffix === "");
    }
    const part = text(rules.value("contains"));
    if (part !== undefined) {
      add({ pattern: literal(part) }, part === "");
    }
    const banned = text(rules.value("notContains"));
    if (banned !== undefined) {
      add({ not: { pattern: literal(banned) } }, banned !== "");
    }
    const constant = text(rules.value("const"));
    if (constant !== undefined) {
      add({ const: constant }, constant === "");
    }
    const choices = rules.list("in").filter((value) => typeof value === "string");
    if (choices.length > 0) {
      add({ enum: choices }, choices.includes(""));
    }
    const refused = rules.list("notIn").filter((value) => typeof value === "string");
    if (refused.length > 0) {
      add({ not: { enum: refused } }, !refused.includes(""));
    }
    if (rules.wellKnown !== undefined) {
      add(formats[rules.wellKnown] ?? {}, emptyFormats.has(rules.wellKnown));
      const note = formatNotes[rules.wellKnown];
      notes.push(...(note === undefined ? [] : [note]));
    }
  }
  if (nonZero) {
    schema = { ...schema, minLength: Math.max(1, Number(schema["minLength"] ?? 0)) };
  }
  return fragment(schema, { notes, zeroAllowed });
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
