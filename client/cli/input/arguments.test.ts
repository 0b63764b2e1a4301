import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import type { JsonObject } from "@bufbuild/protobuf";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Io } from "../io.ts";
import { UsageError } from "../usage-error.ts";
import { readArgumentStream, readArguments } from "./arguments.ts";

const schema: JsonObject = {
  type: "object",
  properties: {
    city: { type: "string" },
    days: { type: "integer" },
    metric: { type: "boolean" },
    score: { anyOf: [{ type: "number" }, { type: "string", enum: ["NaN", "Infinity"] }] },
    labels: { type: "array", items: { type: "string" } },
    counts: { type: "array", items: { type: "integer" } },
    place: { $ref: "#/$defs/Place" },
    anything: {},
  },
  $defs: { Place: { type: "object", properties: { lat: { type: "number" } } } },
};

function ioWith(stdin = ""): Io {
  return {
    stdin: Readable.from([Buffer.from(stdin)]),
    stdout: new PassThrough(),
    stderr: new PassThrough(),
    env: {},
    signal: new AbortController().signal,
    interrupt: () => {},
    now: () => 0,
  };
}

const read = (words: string[], stdin?: string) => readArguments(words, schema, ioWith(stdin));
const readStream = (words: string[], stdin?: string) => readArgumentStream(words, schema, ioWith(stdin));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "toolplane-arguments-"));
  await writeFile(join(folder, "request.json"), '{"city": "Köln"}');
  await writeFile(join(folder, "text.txt"), "a=b\nc");
  await writeFile(join(folder, "many.ndjson"), '{"days": 1}\n\n{"days": 2}\n');
});
afterAll(() => rm(folder, { recursive: true }));

describe("the arguments of a call", () => {
  it("are an empty object when there are none", async () => {
    expect(await read([])).toEqual({});
  });

  it("come as JSON from the command line, a file and stdin", async () => {
    expect(await read(['{"city": "Berlin"}'])).toEqual({ city: "Berlin" });
    expect(await read([`@${join(folder, "request.json")}`])).toEqual({ city: "Köln" });
    expect(await read(["-"], '{"city": "Paris"}')).toEqual({ city: "Paris" });
  });

  it("come as pairs, each with the type that the schema asks for", async () => {
    expect(
      await read([
        "city=12",
        "days=3",
        "metric=true",
        "score=1.5",
        "labels=a",
        "labels=b",
        "counts=1",
        "place.lat=52.5",
      ]),
    ).toEqual({
      city: "12",
      days: 3,
      metric: true,
      score: 1.5,
      labels: ["a", "b"],
      counts: [1],
      place: { lat: 52.5 },
    });
  });

  it("keep text that is no value of its type, so that the server can say what is wrong", async () => {
    expect(await read(["days=many", "metric=1", "score=NaN"])).toEqual({
      days: "many",
      metric: "1",
      score: "NaN",
    });
  });

  it("take := for JSON, and @ for what a file holds", async () => {
    expect(await read(['city:="x"', "anything:=[1,null]", "unknown:=true"])).toEqual({
      city: "x",
      anything: [1, null],
      unknown: true,
    });
    expect(
      await read([`city=@${join(folder, "text.txt")}`, `place:=@${join(folder, "request.json")}`]),
    ).toEqual({
      city: "a=b\nc",
      place: { city: "Köln" },
    });
  });

  it("may contain = and : in values", async () => {
    expect(await read(["city=a=b:=c", "anything=http://x:80/?q=1"])).toEqual({
      city: "a=b:=c",
      anything: "http://x:80/?q=1",
    });
  });

  it("keep every digit of integers that a double cannot hold", async () => {
    await fc.assert(
      fc.asyncProperty(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }), async (n) => {
        const inline = await read([`{"days": ${n}}`]);
        const pair = await read([`days=${n}`]);
        expect(String(inline["days"])).toBe(String(n));
        expect(String(pair["days"])).toBe(String(n));
      }),
    );
  });

  it("treat __proto__ as a name like any other", async () => {
    const args = await read(["__proto__.polluted=yes", "city=x"]);
    expect(Object.keys(args)).toEqual(["__proto__", "city"]);
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });

  it.each([
    [["{bad"], /not JSON/],
    [["[1]"], /must be a JSON object/],
    [["Berlin"], /neither JSON nor a pair/],
    [["city=a", '{"days": 1}'], /neither JSON nor a pair/],
    [["city=a", "city=b"], /given twice/],
    [["place=x", "place.lat=1"], /goes into place/],
    [["days:=1e999"], /too large/],
    [["@/does/not/exist"], /there is no such file/],
    [["-"], /Stdin is empty/],
    [[`place:=${"[".repeat(101)}${"]".repeat(101)}`], /nested more than 100 levels deep/],
    [[`${'{"a":'.repeat(50_000)}1${"}".repeat(50_000)}`], /nested more than 100 levels deep/],
    [["5"], /must be a JSON object/],
    [['"Berlin"'], /must be a JSON object/],
  ])("refuse %j", async (words, message) => {
    const reading = read(words);
    await expect(reading).rejects.toThrow(UsageError);
    await expect(reading).rejects.toThrow(message);
  });
});

describe("the messages of a call that takes a stream", () => {
  it("come one a line from stdin, with or without saying so, and from a file", async () => {
    const lines = '{"days": 1}\r\n\n{"days": 2}';
    const messages = [{ days: 1 }, { days: 2 }];
    expect(await readStream(["-"], lines)).toEqual(messages);
    expect(await readStream([], lines)).toEqual(messages);
    expect(await readStream([`@${join(folder, "many.ndjson")}`])).toEqual(messages);
  });

  it("come as a list, as one object, and as the pairs of one message", async () => {
    expect(await readStream(['[{"days": 1}, {"days": 2}]'])).toEqual([{ days: 1 }, { days: 2 }]);
    expect(await readStream(['{"days": 1}'])).toEqual([{ days: 1 }]);
    expect(await readStream(["days=1", "city=x"])).toEqual([{ days: 1, city: "x" }]);
  });

  it("are refused with the line that is wrong", async () => {
    await expect(readStream(["-"], '{"days": 1}\nnope')).rejects.toThrow(/Line 2 of stdin is not JSON/);
    await expect(readStream(["-"], "[1]")).rejects.toThrow(/Line 1 of stdin must be a JSON object/);
  });

  it("are no more than a call may have", async () => {
    await expect(readStream(["-"], "{}\n".repeat(10_001))).rejects.toThrow(/at most 10,?000 messages/);
  });
});
