import { create, fromJson, type JsonValue, toBinary } from "@bufbuild/protobuf";
import { anyPack, anyUnpack, ValueSchema } from "@bufbuild/protobuf/wkt";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { RunEventSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { RunSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createRedactor } from "./redact.ts";

test("every occurrence is replaced, the longer of secrets that begin alike first", () => {
  const { text } = createRedactor(() => ["secret", "secret-of-ada", "a.c(d)e"]);
  expect(text("secret-of-ada, secret of bob, asecreta, a.c(d)e, abc(d)e")).toBe(
    "***, *** of bob, a***a, ***, abc(d)e",
  );
});

test("what is too short to be a secret stays", () => {
  const { text } = createRedactor(() => ["", "a", "12345"]);
  expect(text("a 12345")).toBe("a 12345");
});

test("a secret is found as JSON, URLs, forms and base64 spell it", () => {
  const secret = 'p@ss "wörd"/+\n1';
  const { text } = createRedactor(() => [secret]);
  const form = new URLSearchParams({ key: secret }).toString();
  const spelled = [
    JSON.stringify({ key: secret }),
    `key=${encodeURIComponent(secret)}`,
    `key=${encodeURIComponent(secret).replaceAll(/%../g, (escaped) => escaped.toLowerCase())}`,
    form,
    Buffer.from(secret).toString("base64"),
    Buffer.from(secret).toString("base64url"),
  ];
  expect(spelled.map((each) => text(each).replaceAll("=", ""))).toEqual([
    '{"key":"***"}',
    "key***",
    "key***",
    "key***",
    "***",
    "***",
  ]);
});

test("a text that ends in the middle of a secret says so", () => {
  const { unfinished, text } = createRedactor(() => ["bcabcabcd", "secret-of-ada"]);
  expect([unfinished(""), unfinished("no"), unfinished("a sec"), unfinished("xabcabc")]).toEqual([
    0, 0, 3, 5,
  ]);
  expect(unfinished("secret-of-ada")).toBe(0);
  expect(unfinished(text("secret-of-ada"))).toBe(0);
  expect(createRedactor(() => []).unfinished("abc")).toBe(0);
});

test("names in objects are replaced too, names of fields are not", () => {
  const { json, message } = createRedactor(() => ["labels", "createdBy"]);
  expect(json({ labels: ["labels", 1, null, { x: "my labels" }] })).toEqual({
    "***": ["***", 1, null, { x: "my ***" }],
  });
  const run = create(RunSchema, {
    createdBy: "createdBy",
    labels: { labels: "labels" },
    input: { labels: true },
    output: fromJson(ValueSchema, { labels: "labels" }),
  });
  expect(message(RunSchema, run)).toEqual(
    create(RunSchema, {
      createdBy: "***",
      labels: { "***": "***" },
      input: { "***": true },
      output: fromJson(ValueSchema, { "***": "***" }),
    }),
  );
  // The message itself is as it was.
  expect(run.createdBy).toBe("createdBy");
});

test("details of errors are looked into; what is not known is left out where it holds a secret", () => {
  const { message } = createRedactor(() => ["hunter2"]);
  const info = create(ErrorInfoSchema, { reason: "BAD_KEY", metadata: { key: "hunter2" } });
  const hidden = { typeUrl: "type.googleapis.com/unknown.Type", value: Buffer.from("..hunter2..") };
  const harmless = { typeUrl: "type.googleapis.com/unknown.Type", value: Buffer.from("fine") };
  const status = create(StatusSchema, {
    message: "hunter2",
    details: [anyPack(ErrorInfoSchema, info), hidden, harmless],
  });
  const [first, second, third] = message(StatusSchema, status).details;
  expect(first && anyUnpack(first, ErrorInfoSchema)).toMatchObject({
    reason: "BAD_KEY",
    metadata: { key: "***" },
  });
  expect(second?.value).toHaveLength(0);
  expect(third?.value).toEqual(harmless.value);
});

test("a message without a secret is given back as it is", () => {
  const event = create(RunEventSchema, { path: "a" });
  expect(createRedactor(() => ["hunter2"]).message(RunEventSchema, event)).toBe(event);
  expect(createRedactor(() => []).message(RunEventSchema, event)).toBe(event);
});

test("secrets that come and go are known at once", () => {
  let secrets = ["first-one"];
  const { text } = createRedactor(() => secrets);
  expect(text("first-one second-one")).toBe("*** second-one");
  secrets = ["second-one"];
  expect(text("first-one second-one")).toBe("first-one ***");
  secrets = [];
  expect(text("first-one second-one")).toBe("first-one second-one");
});

test("no secret is left in any value", () => {
  const secret = "tok'e\"n\\ü\n";
  const { message } = createRedactor(() => [secret]);
  // What fast-check makes is JSON, which it declares in a way of its own.
  const withSecret = fc
    .jsonValue()
    .map((value) => ({ value, [`x${secret}y`]: [`${secret}${secret}`] }) as unknown as JsonValue);
  fc.assert(
    fc.property(withSecret, (value) => {
      const told = message(ValueSchema, fromJson(ValueSchema, value));
      expect(Buffer.from(toBinary(ValueSchema, told)).includes(secret)).toBe(false);
    }),
  );
});
