import { create, createFileRegistry, type DescMessage, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
  StringValueSchema,
  type Struct,
  StructSchema,
} from "@bufbuild/protobuf/wkt";
import { createContextValues, type UnaryRequest } from "@connectrpc/connect";
import fc from "fast-check";
import { expect, test } from "vitest";
import { SampleService } from "../test-support/sample-service.ts";
import { principalKey, type Role } from "./call-context.ts";
import { canonicalBinary, requestKey } from "./request-key.ts";

function struct(value: object): Struct {
  return fromJsonStruct(JSON.parse(JSON.stringify(value)));
}

function fromJsonStruct(value: Record<string, unknown>): Struct {
  return create(StructSchema, {
    fields: Object.fromEntries(
      Object.entries(value).map(([name, one]) => [
        name,
        typeof one === "object" && one !== null
          ? { kind: { case: "structValue" as const, value: fromJsonStruct({ ...one }) } }
          : { kind: { case: "stringValue" as const, value: String(one) } },
      ]),
    ),
  });
}

/** The same entries at every depth, written in another order. */
function reversed(value: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([name, one]) => [name, typeof one === "object" && one !== null ? reversed({ ...one }) : one]),
  );
}

const tree = fc.letrec<{ object: Record<string, unknown>; value: unknown }>((tie) => ({
  object: fc.dictionary(fc.string({ maxLength: 4 }), tie("value"), { maxKeys: 5 }),
  value: fc.oneof({ maxDepth: 3 }, fc.string({ maxLength: 5 }), tie("object")),
})).object;

test("equal messages have equal bytes, in whatever order the entries of their maps were written", () => {
  fc.assert(
    fc.property(tree, (value) => {
      const one = canonicalBinary(StructSchema, struct(value));
      const other = canonicalBinary(StructSchema, struct(reversed(value)));
      expect(Buffer.compare(one, other)).toBe(0);
      // And they are still that message.
      expect(fromBinary(StructSchema, one)).toEqual(struct(value));
    }),
    { numRuns: 300 },
  );
});

test("different messages have different bytes", () => {
  fc.assert(
    fc.property(tree, tree, (one, other) => {
      const same =
        Buffer.compare(
          canonicalBinary(StructSchema, struct(one)),
          canonicalBinary(StructSchema, struct(other)),
        ) === 0;
      expect(same).toBe(JSON.stringify(sorted(one)) === JSON.stringify(sorted(other)));
    }),
  );
});

function sorted(value: unknown): unknown {
  return typeof value === "object" && value !== null
    ? Object.entries(value)
        .map(([name, one]) => [name, sorted(one)])
        .sort(([one], [other]) => Buffer.compare(Buffer.from(String(one)), Buffer.from(String(other))))
    : value;
}

/** A message with a map inside a group, next to other fields. */
function describeGroup(): { outer: DescMessage; inner: DescMessage } {
  const { MESSAGE, GROUP, STRING } = FieldDescriptorProto_Type;
  const { OPTIONAL, REPEATED } = FieldDescriptorProto_Label;
  const file = create(FileDescriptorProtoSchema, {
    name: "group.proto",
    package: "test",
    syntax: "proto2",
    messageType: [
      {
        name: "Outer",
        field: [
          { name: "before", number: 1, type: STRING, label: REPEATED },
          { name: "inner", number: 2000, type: GROUP, typeName: ".test.Inner", label: OPTIONAL },
          { name: "after", number: 3000, type: STRING, label: OPTIONAL },
        ],
      },
      {
        name: "Inner",
        field: [{ name: "map", number: 1, type: MESSAGE, typeName: ".test.Inner.MapEntry", label: REPEATED }],
        nestedType: [
          {
            name: "MapEntry",
            options: { mapEntry: true },
            field: [
              { name: "key", number: 1, type: STRING, label: OPTIONAL },
              { name: "value", number: 2, type: STRING, label: OPTIONAL },
            ],
          },
        ],
      },
    ],
  });
  const registry = createFileRegistry(file, () => undefined);
  const [outer, inner] = [registry.getMessage("test.Outer"), registry.getMessage("test.Inner")];
  if (outer === undefined || inner === undefined) {
    throw new Error("the messages are not described");
  }
  return { outer, inner };
}

test("maps inside groups are put in order too, and unknown fields stay as they came", () => {
  const { outer, inner } = describeGroup();
  const message = (...keys: string[]) => {
    const map = Object.fromEntries(keys.map((key) => [key, `value of ${key}`]));
    const made = create(outer, { before: ["b", "a"], inner: create(inner, { map }), after: "z" });
    const unknown = Uint8Array.of(0x8a, 0x7d, 1, 7, 0x8a, 0x7d, 1, 3);
    return fromBinary(outer, Buffer.concat([toBinary(outer, made), unknown]));
  };
  const one = canonicalBinary(outer, message("x", "y", "w"));
  const other = canonicalBinary(outer, message("w", "x", "y"));
  expect(Buffer.compare(one, other)).toBe(0);
  expect(Buffer.compare(one, toBinary(outer, message("w", "x", "y")))).toBe(0);
});

function request(
  init: {
    id?: string;
    role?: Role;
    text?: string;
    header?: Record<string, string>;
    method?: UnaryRequest["method"];
  } = {},
) {
  const {
    id = "user:ada",
    role = "caller",
    text = "hello",
    header,
    method = SampleService.method.echo,
  } = init;
  return {
    method,
    message: create(StringValueSchema, { value: text }),
    header: new Headers(header),
    contextValues: createContextValues().set(principalKey, { id, role }),
  };
}

test("the same request of the same principal has the same key", () => {
  expect(requestKey(request())).toBe(requestKey(request()));
  expect(requestKey(request())).toMatch(/^[\w-]{43}$/);
  expect(requestKey(request({ header: { "x-correlation-id": "1" } }))).toBe(requestKey(request()));
});

test("another principal, role, message, method or tenant has another key", () => {
  const tenants = ["x-tenant"];
  const keys = [
    requestKey(request(), tenants),
    requestKey(request({ id: "user:bob" }), tenants),
    requestKey(request({ id: "" }), tenants),
    requestKey(request({ role: "reader" }), tenants),
    requestKey(request({ text: "" }), tenants),
    requestKey(request({ header: { "x-tenant": "" } }), tenants),
    requestKey(request({ header: { "x-tenant": "one" } }), tenants),
    requestKey(
      {
        ...request(),
        method: SampleService.method.measure,
        message: create(SampleService.method.measure.input),
      },
      tenants,
    ),
    // Without a form of their own in UTF-8.
    requestKey(request({ id: "user:\ud800" }), tenants),
    requestKey(request({ id: "user:\ud801" }), tenants),
  ];
  expect(new Set(keys).size).toBe(keys.length);
});

test("what belongs to one part of a request cannot be taken for another part", () => {
  fc.assert(
    fc.property(
      fc.tuple(fc.string(), fc.string(), fc.string()),
      fc.tuple(fc.string(), fc.string(), fc.string()),
      (one, other) => {
        const key = ([id, tenant, text]: [string, string, string]) =>
          requestKey(request({ id, text, header: { "x-tenant": Buffer.from(tenant).toString("hex") } }), [
            "x-tenant",
          ]);
        expect(key(one) === key(other)).toBe(JSON.stringify(one) === JSON.stringify(other));
      },
    ),
  );
});
