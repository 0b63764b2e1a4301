import { createHash } from "node:crypto";
import { join } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, it } from "vitest";
import type { Polyglot } from "./setup.ts";
import { output, root } from "./tools.ts";

/** For every tool: arguments that it takes (a list: a stream of them), and some that it does not. */
const CALLS: [string, { good: JsonObject | JsonObject[]; bad: JsonObject[] }][] = [
  [
    "text.AnalyzeText",
    { good: { text: "One. Two.", topWords: 1 }, bad: [{}, { text: "" }, { text: "a", topWords: 101 }] },
  ],
  [
    "text.GradeSentences",
    {
      good: { text: "One. Two.", atLeast: "DIFFICULTY_EASY" },
      bad: [{ text: "a", atLeast: "DIFFICULTY_NONE" }],
    },
  ],
  [
    "time.ConvertTime",
    {
      good: { localTime: "2026-07-01T09:00", zone: "Asia/Tokyo", toZones: ["UTC"] },
      bad: [{ toZones: "UTC" }, { toZones: [7] }, { unknown: 1 }],
    },
  ],
  [
    "time.ListClockChanges",
    { good: { zone: "Europe/Paris", fromYear: 2026 }, bad: [{ fromYear: 2 ** 31 }, { fromYear: 0.5 }] },
  ],
  [
    "time.FindMeetingTime",
    {
      good: [{ name: "A", zone: "UTC", begins: "09:00", ends: "17:00", date: "2026-07-01" }],
      bad: [{ name: true }],
    },
  ],
  [
    "diff.CompareTexts",
    {
      good: { before: "a", after: "b", contextLines: 1 },
      bad: [{ contextLines: -1 }, { before: null, x: 1 }],
    },
  ],
  ["diff.FollowVersions", { good: [{ name: "1", text: "a" }, { text: "b" }], bad: [{ text: ["a"] }] }],
  [
    "diff.ComputeDigest",
    {
      good: [{ algorithm: "ALGORITHM_SHA512", data: "aGk=" }],
      bad: [{ data: "?" }, { algorithm: "ALGORITHM_MD5" }],
    },
  ],
  ["stats.describe", { good: { values: [1, 2, 3] }, bad: [{ values: [1] }, { values: ["a", "b"] }, {}] }],
  [
    "stats.normal_probability",
    { good: { x: -1.5, deviation: 2 }, bad: [{ x: 0, deviation: 0 }, { x: "0" }] },
  ],
];

/** Services in three languages as tools. */
export function testExamples(polyglot: () => Polyglot): void {
  async function schemasOf(name: string) {
    const { tool } = await polyglot().toolplane.registry.getTool({ name });
    const ajv = new Ajv2020({ strict: false, formats: { "date-time": true } });
    return {
      accepts: ajv.compile(tool?.inputSchema ?? false),
      answers: ajv.compile(tool?.outputSchema ?? false),
    };
  }

  describe("services in TypeScript, Python and Go, registered by address", () => {
    it("offer every method as a tool that says how it streams", async () => {
      const tools = await Promise.all(
        ["text", "time", "diff", "stats"].map((service) =>
          polyglot().toolplane.registry.listTools({ filter: { service } }),
        ),
      );
      expect(tools.flatMap((page) => page.tools.map(({ name, streaming }) => [name, streaming]))).toEqual([
        ["text.examples.text.v1.TextService.AnalyzeText", Streaming.UNARY],
        ["text.examples.text.v1.TextService.GradeSentences", Streaming.SERVER],
        ["time.examples.time.v1.TimeService.ConvertTime", Streaming.UNARY],
        ["time.examples.time.v1.TimeService.FindMeetingTime", Streaming.CLIENT],
        ["time.examples.time.v1.TimeService.ListClockChanges", Streaming.SERVER],
        ["diff.examples.diff.v1.DiffService.CompareTexts", Streaming.UNARY],
        ["diff.examples.diff.v1.DiffService.ComputeDigest", Streaming.CLIENT],
        ["diff.examples.diff.v1.DiffService.FollowVersions", Streaming.BIDI],
        ["stats.describe", Streaming.UNARY],
        ["stats.normal_probability", Streaming.UNARY],
      ]);
    });

    it("offer no tools for health and reflection", async () => {
      const { tools } = await polyglot().toolplane.registry.listTools({ pageSize: 1000 });
      expect(
        tools.filter(({ name }) => /\bgrpc\.(health|reflection)\b/.test(name) && !/^toolplane\./.test(name)),
      ).toEqual([]);
    });

    it.each(CALLS)("have schemas that tell good arguments from bad ones: %s", async (name, { good, bad }) => {
      const { accepts, answers } = await schemasOf(name);
      const results = await all(polyglot().toolplane.callToolStream(name, good));
      expect(results).not.toEqual([]);
      for (const [check, values, fits] of [
        [accepts, Array.isArray(good) ? good : [good], true],
        [accepts, bad, false],
        [answers, results, true],
      ] as const) {
        for (const value of values) {
          expect([value, check(value), fits || check.errors]).toEqual([
            value,
            fits,
            fits || expect.anything(),
          ]);
        }
      }
      for (const value of bad) {
        const error = await failure(
          polyglot().toolplane.callTool(name, Array.isArray(good) ? [value] : value),
        );
        expect([value, error.code]).toEqual([value, Code.InvalidArgument]);
      }
    });

    it("are found by what they do", async () => {
      const found = async (query: string) =>
        (await polyglot().toolplane.registry.searchTools({ query })).hits.map(({ tool }) => tool?.alias);
      expect((await found("how hard is a text to read"))[0]).toMatch(/^text\./);
      expect(await found("standard deviation")).toContain("stats.describe");
      expect(await found("time zone convert")).toContain("time.ConvertTime");
      expect(await found("digest")).toContain("diff.ComputeDigest");
    });

    it("are healthy as each says itself", async () => {
      const { checks } = await polyglot().toolplane.registry.checkHealth({});
      const status = new Map(checks.map(({ service, status }) => [service, status]));
      for (const name of ["text", "time", "diff", "stats"]) {
        expect([name, status.get(name)]).toEqual([name, HealthStatus.HEALTHY]);
      }
    });
  });

  it("services have tests of their own, which pass", async () => {
    const { code, stdout, stderr } = await output("go", [
      "test",
      "-C",
      join(root, "examples", "go"),
      "./...",
    ]);
    expect([code, stdout + stderr]).toEqual([0, expect.stringContaining("ok")]);
  });

  describe("their tools", () => {
    it("in TypeScript are called and stream", async () => {
      const { toolplane } = polyglot();
      expect(
        await toolplane.callTool("text.AnalyzeText", { text: "The cat sat. The dog ran.", topWords: 1 }),
      ).toMatchObject({
        sentences: 2,
        words: 6,
        readability: { difficulty: "DIFFICULTY_EASY" },
        topWords: { the: 2 },
      });
      const graded = toolplane.callToolStream("text.GradeSentences", { text: "The cat sat. The dog ran." });
      expect(await all(graded)).toMatchObject([
        { number: 1, sentence: "The cat sat." },
        { number: 2, sentence: "The dog ran." },
      ]);
    });

    it("in Python are called, stream, and take a stream", async () => {
      const { toolplane } = polyglot();
      const zone = "Europe/Berlin";
      expect(
        await toolplane.callTool("time.ConvertTime", {
          localTime: "2026-03-29T02:30",
          zone,
          toZones: ["Asia/Kathmandu"],
        }),
      ).toEqual({
        time: "2026-03-29T01:30:00Z",
        certainty: "CERTAINTY_SKIPPED",
        zones: {
          "Asia/Kathmandu": expect.objectContaining({
            localTime: "2026-03-29T07:15:00",
            utcOffset: "20700s",
          }),
        },
      });
      const changes = toolplane.callToolStream("time.ListClockChanges", { zone, fromYear: 2026 });
      expect(await all(changes)).toMatchObject([
        { time: "2026-03-29T01:00:00Z" },
        { time: "2026-10-25T01:00:00Z" },
      ]);
      const people = [
        { name: "Ana", zone, begins: "09:00", ends: "17:00", date: "2026-07-01" },
        { name: "Bo", zone: "America/New_York", begins: "08:00", ends: "16:00" },
      ];
      expect(await toolplane.callTool("time.FindMeetingTime", people)).toMatchObject({
        people: 2,
        slot: { start: "2026-07-01T12:00:00Z", length: "10800s" },
      });
    });

    it("in Go are called, take a stream, and stream both ways", async () => {
      const { toolplane } = polyglot();
      expect(
        await toolplane.callTool("diff.CompareTexts", { before: "a\nb", after: "a\nB", contextLines: 0 }),
      ).toMatchObject({
        difference: { added: "1", removed: "1", similarity: 0.5, unified: "@@ -2 +2 @@\n-b\n+B\n" },
      });
      const pieces = ["toolplane", " ", "digest"];
      const data = pieces.map((piece) => ({ data: Buffer.from(piece).toString("base64") }));
      expect(await toolplane.callTool("diff.ComputeDigest", data)).toMatchObject({
        digest: createHash("sha256").update(pieces.join("")).digest("base64"),
        size: "16",
      });
      const versions = [
        { name: "1", text: "a" },
        { name: "2", text: "a\nb" },
      ];
      expect(await all(toolplane.callToolStream("diff.FollowVersions", versions))).toMatchObject([
        { name: "1", difference: { added: "1" } },
        { name: "2", difference: { added: "1", unified: "@@ -1 +1,2 @@\n a\n+b\n" } },
      ]);
    });

    it("over plain HTTP are called with path, query and body", async () => {
      const { toolplane } = polyglot();
      expect(await toolplane.callTool("stats.describe", { values: [1, 2, 3, 4, 100] })).toMatchObject({
        outliers: [100],
      });
      const probability = await toolplane.callTool("stats.normal_probability", {
        x: 110,
        mean: 100,
        deviation: 10,
      });
      expect(probability).toEqual({ probability: expect.closeTo(0.841, 3) });
    });

    it("answer mistakes with the backend's own code and words", async () => {
      const { toolplane } = polyglot();
      const wrongZone = toolplane.callTool("time.ListClockChanges", { zone: "Europe/Bern", fromYear: 2026 });
      expect(await failure(wrongZone)).toMatchObject({
        code: Code.InvalidArgument,
        rawMessage: expect.stringContaining('"Europe/Bern" is not a time zone'),
      });
      const wrongBytes = toolplane.callTool("diff.CompareTexts", { before: "x\n".repeat(2001) });
      expect(await failure(wrongBytes)).toMatchObject({
        code: Code.InvalidArgument,
        rawMessage: expect.stringContaining("2000 lines"),
      });
    });

    it("are not even asked when arguments do not fit", async () => {
      const { toolplane } = polyglot();
      const misfits: [string, JsonObject, string][] = [
        ["text.AnalyzeText", { text: "" }, "arguments.text"],
        ["time.ListClockChanges", { zone: 7 }, "arguments.zone"],
        ["diff.CompareTexts", { befor: "a" }, "arguments.befor"],
        ["stats.describe", { values: [1] }, "arguments.values"],
      ];
      for (const [tool, args, field] of misfits) {
        const error = await failure(toolplane.callTool(tool, args));
        expect([tool, error.code, error.rawMessage]).toEqual([
          tool,
          Code.InvalidArgument,
          expect.stringContaining(field),
        ]);
      }
    });

    it("are called many at once", async () => {
      const { toolplane } = polyglot();
      const texts = Array.from({ length: 200 }, (_, index) => "word ".repeat(index + 1));
      const results = await Promise.all(
        texts.map((text) => toolplane.callTool("text.AnalyzeText", { text, topWords: 0 })),
      );
      expect(results.map((result) => Reflect.get(Object(result), "words"))).toEqual(
        texts.map((_, index) => index + 1),
      );
    });
  });
}

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const collected: Item[] = [];
  for await (const item of items) {
    collected.push(item);
  }
  return collected;
}

async function failure(action: Promise<unknown>): Promise<ConnectError> {
  return action.then(
    (value) => expect.fail(`expected an error, got ${JSON.stringify(value)}`),
    (reason: unknown) => ConnectError.from(reason),
  );
}
