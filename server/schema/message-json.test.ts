import { create, type DescMessage, fromJson, type JsonValue, type Registry } from "@bufbuild/protobuf";
import { DescriptorProtoSchema, FileDescriptorProtoSchema, ValueSchema } from "@bufbuild/protobuf/wkt";
import { DomainError } from "@toolplane/framework";
import { describe, expect, it } from "vitest";
import { parseMessageJson } from "./index.ts";
import { registryOf } from "./test-support/random-descriptors.ts";

const registry = registryOf([
  fromJson(FileDescriptorProtoSchema, {
    name: "forecast.proto",
    package: "acme",
    syntax: "proto2",
    dependency: [
      "google/protobuf/any.proto",
      "google/protobuf/struct.proto",
      "google/protobuf/timestamp.proto",
      "google/protobuf/duration.proto",
    ],
    enumType: [
      {
        name: "Unit",
        value: [
          { name: "CELSIUS", number: 0 },
          { name: "FAHRENHEIT", number: 1 },
        ],
      },
    ],
    messageType: [
      {
        name: "Day",
        field: [
          field("unit", 1, "TYPE_ENUM", { typeName: ".acme.Unit" }),
          field("high", 2, "TYPE_INT32"),
          field("station_id", 3, "TYPE_UINT64", { jsonName: "stationId" }),
          field("day", 4, "TYPE_STRING", { label: "LABEL_REQUIRED" }),
        ],
      },
      {
        name: "Forecast",
        field: [
          field("days", 1, "TYPE_MESSAGE", { typeName: ".acme.Day", label: "LABEL_REPEATED" }),
          field("labels", 2, "TYPE_MESSAGE", {
            typeName: ".acme.Forecast.LabelsEntry",
            label: "LABEL_REPEATED",
          }),
          field("extra", 3, "TYPE_MESSAGE", { typeName: ".google.protobuf.Any" }),
          field("at", 4, "TYPE_MESSAGE", { typeName: ".google.protobuf.Timestamp" }),
          field("free", 5, "TYPE_MESSAGE", { typeName: ".google.protobuf.Value" }),
          field("next", 6, "TYPE_MESSAGE", { typeName: ".acme.Forecast" }),
          field("image", 7, "TYPE_BYTES"),
          field("city", 8, "TYPE_STRING", { oneofIndex: 0 }),
          field("point", 9, "TYPE_STRING", { oneofIndex: 0 }),
          field("scale", 10, "TYPE_FLOAT"),
        ],
        oneofDecl: [{ name: "place" }],
        nestedType: [
          {
            name: "LabelsEntry",
            options: { mapEntry: true },
            field: [field("key", 1, "TYPE_INT32"), field("value", 2, "TYPE_STRING")],
          },
        ],
      },
    ],
  }),
]);

function field(name: string, number: number, type: string, rest: Record<string, JsonValue> = {}): JsonValue {
  return { name, jsonName: name, number, type, label: "LABEL_OPTIONAL", ...rest };
}

function message(name: string): DescMessage {
  const desc = registry.getMessage(name);
  if (desc === undefined) {
    throw new Error(`${name} does not exist`);
  }
  return desc;
}

const forecast = message("acme.Forecast");

function problems(json: JsonValue, desc = forecast, types: Registry = registry): string[] {
  try {
    parseMessageJson(desc, json, { registry: types, path: "arguments" });
    return [];
  } catch (error) {
    if (error instanceof DomainError) {
      return (error.init.fields ?? []).map(({ field, description }) => `${field}: ${description}`);
    }
    throw error;
  }
}

function nested(text: string, times: number, inner = ""): JsonValue {
  const [before = "", after = ""] = text.split("*");
  return JSON.parse(before.repeat(times) + inner + after.repeat(times)) as JsonValue;
}

describe("reading a message from JSON", () => {
  it("accepts every form that the Protobuf JSON format has", () => {
    const forms: JsonValue[] = [
      { days: [{ unit: "FAHRENHEIT", high: "3", stationId: 7, day: "Mon" }] },
      { days: [{ unit: 1, high: 3, station_id: "7", day: "Mon" }] },
      {
        days: [{ unit: "FAHRENHEIT", high: "3e0", stationId: "7", day: "Mon" }],
        city: null,
        at: null,
        labels: null,
      },
    ];
    const read = forms.map((json) => parseMessageJson(forecast, json, { registry }));
    expect(read[1]).toEqual(read[0]);
    expect(read[2]).toEqual(read[0]);
    for (const image of ["-_8=", "+/8", "-_8", "+/8=", "+/\n8="]) {
      expect(parseMessageJson(forecast, { image })).toMatchObject({ image: new Uint8Array([251, 255]) });
    }
    for (const scale of ["NaN", "Infinity", "1.5e3", 0]) {
      expect(problems({ scale })).toEqual([]);
    }
  });

  it("reports everything that is wrong, where it is and what would be right", () => {
    expect(
      problems({
        days: [
          { unit: "CELCIUS", high: 1.5, stationId: "-1", day: 7 },
          "Monday",
          null,
          { hihg: 3, station_id: 1, stationId: 1, day: "x".repeat(3) },
        ],
        labels: { "1": "a", "01": "b", b: 3 },
        at: "2030-02-30T00:00:00Z",
        city: "Oslo",
        point: "1,2",
        image: "?",
        scale: 1e39,
      }).sort(),
    ).toEqual(
      [
        'arguments.days[0].unit: expected one of "CELSIUS", "FAHRENHEIT" (did you mean "CELSIUS"?), got the string "CELCIUS"',
        "arguments.days[0].high: expected a whole number from -2147483648 to 2147483647, got the number 1.5",
        'arguments.days[0].stationId: expected a whole number from 0 to 18446744073709551615, got the string "-1"',
        "arguments.days[0].day: expected a string, got the number 7",
        'arguments.days[1]: expected an object (acme.Day), got the string "Monday"',
        "arguments.days[2]: expected a value (acme.Day), got null",
        'arguments.days[3].hihg: is no known field (did you mean "high"?): acme.Day has "unit", "high", "stationId", "day"',
        'arguments.days[3].stationId: is the same field as "station_id"; give it once',
        'arguments.labels["b"]: expected the key to be a whole number from -2147483648 to 2147483647, got "b"',
        'arguments.labels["b"]: expected a string, got the number 3',
        'arguments.labels["01"]: another key has the same value 1',
        'arguments.at: expected a time in RFC 3339, such as "2030-01-31T12:00:00Z", got the string "2030-02-30T00:00:00Z"',
        'arguments.point: cannot be given together with "city": at most one of "city", "point" is allowed',
        'arguments.image: expected a Base64 string, got the string "?"',
        'arguments.scale: expected a number of single precision, "NaN", "Infinity" or "-Infinity", got the number 1e+39',
      ].sort(),
    );
    expect(problems({ days: [{}] })).toEqual(["arguments.days[0].day: is required"]);
    expect(problems(5)).toEqual(["arguments: expected an object (acme.Forecast), got the number 5"]);
  });

  it("looks into google.protobuf.Any", () => {
    const url = "type.googleapis.com/";
    expect(problems({ extra: { "@type": `${url}acme.Day`, day: "Mon" } })).toEqual([]);
    expect(problems({ extra: { "@type": `${url}google.protobuf.Duration`, value: "1.5s" } })).toEqual([]);
    expect(problems({ extra: {} })).toEqual([]);
    expect(problems({ extra: { "@type": `${url}acme.Day`, high: "x", day: "Mon" } })).toEqual([
      'arguments.extra.high: expected a whole number from -2147483648 to 2147483647, got the string "x"',
    ]);
    expect(problems({ extra: { "@type": `${url}google.protobuf.Duration`, value: "1", more: 1 } })).toEqual([
      'arguments.extra.value: expected a duration in seconds, such as "1.5s", got the string "1"',
      'arguments.extra.more: is no known field: google.protobuf.Duration is in "value"',
    ]);
    expect(problems({ extra: { "@type": `${url}acme.Missing` } })).toEqual([
      'arguments.extra.@type: the service does not describe a message type "acme.Missing"',
    ]);
    expect(problems({ extra: { a: 1 } })).toEqual([
      'arguments.extra.@type: is required, such as "type.googleapis.com/acme.v1.City"',
    ]);
  });

  it("answers values that nest too deep with an error of that name", () => {
    const tooDeep = /nests deeper than 100 messages$/;
    expect(problems(nested('{"next":*}', 10_000, "{}"))).toEqual([expect.stringMatching(tooDeep)]);
    expect(problems({ free: nested("[*]", 10_000) })).toEqual([expect.stringMatching(tooDeep)]);
    expect(problems({ free: nested('{"a":*}', 10_000, "1") })).toEqual([expect.stringMatching(tooDeep)]);
    expect(problems(nested('{"next":*}', 99, "{}"))).toEqual([]);
    expect(problems({ free: nested("[*]", 97) })).toEqual([]);
  });

  it("stops after many violations, and repeats only the beginning of long texts", () => {
    const found = problems({
      labels: Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`k${i}`, i])),
    });
    expect(found).toHaveLength(51);
    expect(found.at(-1)).toMatch("more than 50 problems");
    const [long = ""] = problems({ ["x".repeat(1_000_000)]: "y" });
    expect(long.length).toBeLessThan(400);
    expect(problems({ image: "?".repeat(1_000_000) })[0]?.length).toBeLessThan(200);
    expect(problems({ days: [{ stationId: "9".repeat(1_000_000), day: "" }] })).toHaveLength(1);
  });

  it("keeps names that mean something to JavaScript apart", () => {
    expect(problems(JSON.parse('{"__proto__":1,"constructor":2,"toString":3}') as JsonValue)).toHaveLength(3);
  });

  it("refuses text that is not Unicode", () => {
    expect(problems({ city: "\ud800" })).toHaveLength(1);
    expect(problems({ labels: { "1": "\udc00" } })).toHaveLength(1);
    expect(problems("\ud800", ValueSchema)).toHaveLength(1);
  });

  it("knows that a message without fields has none", () => {
    const registry = registryOf([
      create(FileDescriptorProtoSchema, {
        name: "ping.proto",
        syntax: "proto3",
        messageType: [create(DescriptorProtoSchema, { name: "Ping" })],
      }),
    ]);
    const desc = registry.getMessage("Ping") ?? forecast;
    expect(problems({ a: 1 }, desc, registry)).toEqual([
      "arguments.a: is no known field: Ping has no fields",
    ]);
  });
});
