import fc from "fast-check";
import { expect, test } from "vitest";
import { bracketDepth, ScanError, split } from "./scan.ts";

/** Sources that are balanced, with string literals of all forms and comments, which hold brackets and quotes. */
const inside = fc.string({
  unit: fc.constantFrom("a", "}", "{", "(", "]", "$", " ", "\\\\", '\\"', "\\'", "é", "/"),
});
const literal = fc.oneof(
  inside.map((text) => `"${text.replaceAll("\\'", "'")}"`),
  inside.map((text) => `'${text.replaceAll('\\"', '"')}'`),
  inside.map((text) => `"""${text.replaceAll('"', "")}\n}"""`),
  inside.map((text) => `'''${text.replaceAll("'", "")}"}'''`),
  inside.map((text) => `r"${text.replaceAll(/["\\]/g, "")}\\"`),
  inside.map((text) => `bR'${text.replaceAll(/['\\]/g, "")}}\\'`),
);
const { source } = fc.letrec<{ source: string }>((tie) => ({
  source: fc
    .array(
      fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom("a", " + ", "1", "x.y", " ? ", ":", "bar"),
        literal.map((text) => ` ${text}`),
        fc.constant(" // } ' \"\n"),
        fc
          .tuple(fc.constantFrom("()", "[]", "{}"), tie("source"))
          .map(([[open, close], part]) => open + part + close),
      ),
      { maxLength: 6 },
    )
    .map((parts) => parts.join("")),
}));

const text = fc.string({ unit: fc.constantFrom("a", "$", "{", "}", '"', "'", " ", "ü") });

function asText(plain: string): string {
  return plain.replaceAll("${", () => "$${");
}

test("An expression ends at the brace that matches, whatever its string literals, comments and maps hold", () => {
  fc.assert(
    fc.property(text, source, text, (before, expression, after) => {
      // A dollar before it would make it a text.
      fc.pre(!before.endsWith("$"));
      const written = `${asText(before)}\${${expression}}${asText(after)}`;
      const found = split(written);
      expect(found.filter(({ kind }) => kind === "expression")).toEqual([
        { kind: "expression", source: expression, offset: asText(before).length + 2 },
      ]);
      const texts = found.flatMap((piece) => (piece.kind === "text" ? [piece.text] : []));
      expect(texts.join("")).toBe(before + after);
    }),
    { numRuns: 1_000 },
  );
});

test("A text in which every ${ is written $${ is taken as it is", () => {
  fc.assert(
    fc.property(text, (plain) => {
      expect(split(asText(plain))).toEqual([{ kind: "text", text: plain }]);
    }),
  );
});

test("Whatever the text, it is split or refused with a place in it", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom(..."${}()[]\"'\\r\nab/".split("")), maxLength: 60 }),
      (any) => {
        try {
          split(any);
        } catch (error) {
          expect(error).toBeInstanceOf(ScanError);
          expect((error as ScanError).offset).toBeLessThan(any.length);
        }
      },
    ),
    { numRuns: 1_000 },
  );
});

test.each([
  ["a ${ 1", "has no matching", 2],
  ["${ 'a }", "has no closing '", 3],
  ["${ (1 }} )", undefined, undefined],
  ["${ ) }", '")" closes nothing', 3],
])("%s: %s", (broken, message, offset) => {
  if (message === undefined) {
    expect(split(broken)).toHaveLength(2);
    return;
  }
  expect(() => split(broken)).toThrow(
    expect.objectContaining({ message: expect.stringContaining(message), offset }),
  );
});

test("Brackets in string literals do not count", () => {
  expect(bracketDepth("[[1], f({'a': '(((('})]")).toBe(3);
});
