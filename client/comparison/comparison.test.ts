import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  Confidence,
  RecommendationPriority,
  TestChangeKind,
  type TestRunComparison,
  TestRunComparisonSchema,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { comparisonRows, MAX_MARKDOWN_CHARS, renderMarkdown } from "./index.ts";
import { markdownBlock, markdownCell, markdownCode } from "./markdown-text.ts";

type ComparisonInit = Exclude<MessageInitShape<typeof TestRunComparisonSchema>, TestRunComparison>;

function sample(init: ComparisonInit = {}): TestRunComparison {
  return create(TestRunComparisonSchema, {
    comparability: { comparable: true },
    base: [{ id: "r1", project: "shop", context: { commit: "0123456789abcdef" } }],
    head: [{ id: "r2", project: "shop" }],
    summary: {
      regression: true,
      newlyFailing: 1,
      slower: 1,
      basePassRate: 1,
      headPassRate: 0.99999,
      headline: "Bad.",
    },
    changes: [
      {
        kind: TestChangeKind.NEWLY_FAILING,
        test: { name: "adds", file: "cart.test.ts", suitePath: ["cart"], parameters: "1" },
        testId: "0".repeat(32),
        baseStatus: TestStatus.PASSED,
        headStatus: TestStatus.FAILED,
        regression: true,
        verdict: { confidence: Confidence.LOW },
        failure: { type: "AssertionError", message: "expected 1\nto be 2" },
      },
      {
        kind: TestChangeKind.SLOWER,
        test: { name: "waits" },
        baseStatus: TestStatus.PASSED,
        headStatus: TestStatus.PASSED,
        regression: true,
        verdict: { confidence: Confidence.HIGH },
        duration: {
          base: { nanos: 2_000_000 },
          head: { nanos: 24_500_000 },
          delta: { nanos: 22_500_000 },
          deltaPercent: 1_125,
        },
      },
    ],
    ...init,
  });
}

describe("comparisonRows", () => {
  it("has a section a kind, and what a table tells of each test", () => {
    expect(comparisonRows(sample())).toEqual([
      {
        kind: TestChangeKind.NEWLY_FAILING,
        title: "newly failing",
        tone: "bad",
        rows: [
          {
            tone: "bad",
            regression: true,
            testId: "0".repeat(32),
            file: "cart.test.ts",
            name: "cart > adds[1]",
            change: "passed → failed",
            delta: "",
            confidence: "low",
            message: "expected 1",
          },
        ],
      },
      {
        kind: TestChangeKind.SLOWER,
        title: "slower",
        tone: "warning",
        rows: [
          expect.objectContaining({ change: "2 ms → 25 ms", delta: "+23 ms (+1125 %)", confidence: "high" }),
        ],
      },
    ]);
    expect(comparisonRows(create(TestRunComparisonSchema))).toEqual([]);
  });
});

describe("renderMarkdown", () => {
  it("begins with what matters", () => {
    const markdown = renderMarkdown(
      sample({
        recommendations: [
          {
            kind: "FIX_NEW_FAILURES",
            priority: RecommendationPriority.HIGH,
            text: "Fix 1 test.",
            evidence: ["adds"],
          },
        ],
        proposedRenames: [
          { from: { name: "old" }, to: { name: "new" }, similarity: 0.9, evidence: "same file" },
        ],
        coverage: {
          lineDelta: -1.5,
          files: [{ file: "a.ts", basePercent: 50, lost: [{ first: 1, last: 3 }] }],
        },
      }),
    );
    const lines = markdown.split("\n");
    expect(lines[0]).toBe("### 🔴 Tests: regression");
    expect(markdown).toContain("Base: 1 run of `shop` at `0123456789ab`. Head: 1 run of `shop`.");
    expect(markdown).toContain("| pass rate | 100.00 % → 99.99 % |");
    expect(markdown).toContain("- **now:** `Fix 1 test.`\n  - `adds`");
    expect(markdown).toContain("| `cart > adds[1]`<br>`cart.test.ts` | passed → failed | low |");
    expect(markdown).toContain("| `waits` | 2 ms → 25 ms, +23 ms (+1125 %) | high |");
    expect(markdown).toContain("```text\nAssertionError\nexpected 1\nto be 2\n```");
    expect(markdown).toContain("| `a.ts` | 50.0 % | – | 1–3 |  |");
    expect(markdown).toContain("perhaps renamed: 1");
  });

  it("says when sides cannot be compared", () => {
    const markdown = renderMarkdown(
      sample({
        comparability: { comparable: false, issues: [{ reason: "NO_TESTS", message: "none", blocks: true }] },
      }),
    );
    expect(markdown).toMatch(/^### ⚪ Tests cannot be compared\n/);
    expect(markdown).toContain("- ⛔ `NO_TESTS: none`");
  });

  it("leaves out whole parts rather than exceed what a comment may have", () => {
    const change = sample().changes[0];
    const changes = Array.from({ length: 5_000 }, (_, index) => ({
      kind: (index % 13) + 1,
      test: { name: `${index} ${"n".repeat(400)}`, file: "f".repeat(400) },
      failure: { message: "m".repeat(5_000) },
      ...(change?.verdict && { verdict: change.verdict }),
    }));
    const markdown = renderMarkdown(sample({ changes }));
    expect(markdown.length).toBeLessThanOrEqual(MAX_MARKDOWN_CHARS);
    expect(markdown.length).toBeGreaterThan(20_000);
    expect(markdown).toMatch(/More was left out to keep this short\._\n$/);
    expect(markdown.match(/<details/g)?.length).toBe(markdown.match(/<\/details>/g)?.length);
  });

  it("lets nothing in names and messages act", () => {
    const evil =
      "</details><script>alert(1)</script> @everyone #1 [x](http://evil) ![i](x) `` ` a|b \\| \u202e\u001b[31m";
    const markdown = renderMarkdown(
      sample({
        changes: [
          {
            kind: TestChangeKind.NEWLY_FAILING,
            test: { name: evil, file: evil, suitePath: [evil] },
            failure: { message: `${evil}\n\`\`\`\n${evil}`, type: evil, stack: evil },
          },
        ],
        summary: { headline: evil },
        recommendations: [{ text: evil, evidence: [evil] }],
        proposedRenames: [{ from: { name: evil }, to: { name: evil }, evidence: evil }],
        coverage: { files: [{ file: evil }] },
        comparability: { comparable: true, issues: [{ reason: "R", message: evil }] },
        base: [{ project: evil, context: { commit: evil } }],
      }),
    );
    const outside = withoutCode(markdown);
    expect(outside).not.toMatch(/script|everyone|evil|#1/);
    expect(markdown).not.toMatch(/[\p{Cf}\u202e]|\p{Cc}\[/u);
  });
});

/** What remains of Markdown without fenced blocks and code spans, found as CommonMark says. */
function withoutCode(markdown: string): string {
  const lines: string[] = [];
  let fence = "";
  for (const line of markdown.split("\n")) {
    const marks = /^(`{3,})[^`]*$/.exec(line)?.[1] ?? "";
    if (fence === "" && marks !== "") {
      fence = marks;
    } else if (fence !== "" && line.trim() === marks && marks.length >= fence.length) {
      fence = "";
    } else if (fence === "") {
      lines.push(line.replaceAll(/(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)/g, ""));
    }
  }
  return lines.join("\n");
}

describe("text as code", () => {
  it("holds any text in one span, and in one cell", () => {
    const text = fc.string({
      unit: fc.constantFrom("`", "``", "|", "\\", "a", " ", "\n", "<b>", "@x", "\u0000"),
    });
    fc.assert(
      fc.property(text, (value) => {
        expect(withoutCode(markdownCode(value))).toBe("");
        const span = markdownCell(value);
        expect(withoutCode(span)).toBe("");
        expect(span.replaceAll("\\|", "")).not.toContain("|");
        expect(span).not.toMatch(/\\\\\||\n/);
        expect(withoutCode(markdownBlock(value))).toBe("");
      }),
    );
  });

  it("shortens what is long", () => {
    expect(markdownCode("a".repeat(500), 10)).toBe("`aaaaaaaaa…`");
    expect(markdownCode(" \n ")).toBe("");
  });
});
