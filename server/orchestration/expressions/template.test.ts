import type { JsonValue } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { ExpressionError, type Scope } from "./expression.ts";
import { constantTemplate, parseExpression, parseTemplate } from "./template.ts";

const scope: Scope = {
  input: {
    count: 4,
    price: 1.5,
    name: "Ada",
    nothing: null,
    list: [1, 2, 3],
    many: Array.from({ length: 10_000 }, (_, index) => index),
    big: "x".repeat(1_000_000),
    "odd name": true,
    place: { city: "Paris", lat: 48.85 },
  },
  steps: {
    geo: { output: { lat: 1, tags: ["a", "b"] }, state: "succeeded", error: null },
    off: { output: null, state: "skipped", error: null },
    bad: { output: null, state: "failed", error: { code: "UNAVAILABLE", message: "down" } },
  },
  run: { id: "r1", attempt: 2, start_time: "2026-01-31T12:00:00Z" },
};

function value(template: JsonValue, changes: Partial<Scope> = {}): JsonValue {
  return parseTemplate(template).evaluate({ ...scope, ...changes });
}

function cel(source: string): JsonValue {
  return value(`\${ ${source} }`);
}

function failure(template: JsonValue, changes: Partial<Scope> = {}): ExpressionError {
  try {
    value(template, changes);
  } catch (error) {
    if (error instanceof ExpressionError) return error;
    throw error;
  }
  throw new Error("it has a value");
}

describe("Templates", () => {
  test("A text that is one expression keeps the type of its value", () => {
    expect(value({ a: "${ input.list }", b: "${input.nothing}", c: ["${ input.count > 3 }"] })).toEqual({
      a: [1, 2, 3],
      b: null,
      c: [true],
    });
  });

  test("Values within a text are put in: texts as they are, null as nothing, others as JSON", () => {
    expect(value("<${ input.name }|${ input.list }|${ input.nothing }|${ input.place }|${ 1.5 }>")).toBe(
      '<Ada|[1,2,3]||{"city":"Paris","lat":48.85}|1.5>',
    );
  });

  test("A space beside an expression makes it a text", () => {
    expect(value(" ${ input.count }")).toBe(" 4");
  });

  test("$${ stands for ${", () => {
    expect(value("$${ input.name } ${ input.name }")).toBe("${ input.name } Ada");
  });

  test("What is no text, and names of fields, are taken as they are", () => {
    expect(value({ "${a}": [1, null, true] })).toEqual({ "${a}": [1, null, true] });
  });

  test("A constant template gives back texts with ${ as they are", () => {
    const template = constantTemplate({ a: "${ nonsense" });
    expect(template.isConstant).toBe(true);
    expect(template.evaluate(scope)).toEqual({ a: "${ nonsense" });
  });

  test("Results share nothing with each other or with what they come from", () => {
    const template = parseTemplate({ constant: [1], input: "${ input.place }" });
    const first = template.evaluate(scope) as { constant: number[]; input: { city: string } };
    first.constant.push(2);
    first.input.city = "changed";
    expect(template.evaluate(scope)).toEqual({ constant: [1], input: { city: "Paris", lat: 48.85 } });
  });

  test("References tell which steps and variables are named, without evaluating", () => {
    const { references } = parseTemplate({
      a: "${ steps.geo.output.lat + steps['off-x'].output }",
      b: ["${ item }-${ index } ${ has(steps.bad) }", "${ input.list.map(run, run.x) }"],
    });
    expect([...references.steps].sort()).toEqual(["bad", "geo", "off-x"]);
    expect([...references.variables].sort()).toEqual(["index", "input", "item"]);
  });

  test("An expression may be written with or without ${ }", () => {
    expect(parseExpression("input.count > 3").evaluate(scope)).toBe(true);
    expect(parseExpression(" ${ input.count > 3 } ").evaluate(scope)).toBe(true);
    expect(() => parseExpression("${ a } && ${ b }")).toThrow("must be one expression");
  });
});

describe("Values", () => {
  test.each<[string, JsonValue]>([
    ["input.count + input.price", 5.5],
    ["input.price * 2", 3],
    ["input.count / 3", 1],
    ["input.count / 3.0 > 1.3", true],
    ["double(input.count) / 8", 0.5],
    ["input.count > 3.5 && 3.5 < input.count", true],
    ["input.count == 4.0", true],
    ["input.list == [1, 2.0, 3u]", true],
    ["2 in input.list && !(5 in input.list) && 'city' in input.place", true],
    ["'nothing' in input", true],
    ["9007199254740991", 9_007_199_254_740_991],
    ["9007199254740993", "9007199254740993"],
    ["18446744073709551615u", "18446744073709551615"],
    ["b'abc'", "YWJj"],
    ["timestamp(run.start_time) + duration('1h')", "2026-01-31T13:00:00Z"],
    ["timestamp(run.start_time) == timestamp('2026-01-31T12:00:00Z')", true],
    ["timestamp(run.start_time).getMonth()", 0],
    ["duration('90s')", "90s"],
    ["type(1) == int && type([]) == list", true],
    ["{1: 'a', true: 'b'}[1]", "a"],
    ["{'a': {'b': [1]}}", { a: { b: [1] } }],
    ["input['odd name']", true],
    ["steps.geo.output.tags[1]", "b"],
    ["steps['geo'].state + ':' + steps.bad.error.code", "succeeded:UNAVAILABLE"],
  ])("%s", (source, expected) => {
    expect(cel(source)).toEqual(expected);
  });

  test.each<[string, JsonValue]>([
    ["has(input.place.city) && !has(input.place.zip)", true],
    ["has(steps.off.output.anything)", false],
    ["has(steps.off.output.anything.within)", false],
    ["has(input.place.nowhere.city.name)", false],
    ["has(input.place.nowhere.city) ? 1 : 2", 2],
    ["has(steps.geo) && !has(steps.never)", true],
    ["input.list.all(x, x > 0) && input.list.exists(x, x == 2) && input.list.exists_one(x, x > 2)", true],
    ["input.list.filter(x, x > 1).map(x, x * 10)", [20, 30]],
    ["input.list.map(x, x > 1, [x])", [[2], [3]]],
    ["input.list.map(x, input.list.map(y, x * y))[2]", [3, 6, 9]],
    ["input.place.map(key, key)", ["city", "lat"]],
    ["input.list.exists(x, x.nonsense || x == 2)", true],
    ["size('héé') + size(input.list) + size(input.place)", 8],
    ["input.count > 3 ? 'much' : 'little'", "much"],
    ["true || input.missing", true],
    ["input.missing || true", true],
    ["'a,b'.split(',').join('+').upperAscii()", "A+B"],
    ["'%s is %d'.format(['x', 3])", "x is 3"],
    ["input.name.matches('^A.a$') && input.name.startsWith('A')", true],
    ["[1] + [2, 3]", [1, 2, 3]],
  ])("%s", (source, expected) => {
    expect(cel(source)).toEqual(expected);
  });
});

describe("What cannot be evaluated says what is missing and what there is", () => {
  test.each([
    ["input.place.citty", 'input.place has no field "citty" (did you mean "city"?): it has city, lat'],
    ["steps.off.output.lat", 'steps.off.output is null, and has no field "lat"'],
    ["input.name.first", 'input.name is a string, and has no field "first"'],
    ["input.list[3]", "input.list has 3 items, and no [3]"],
    ["input.list['a']", "is a list, and has no string as index"],
    ["steps.never.output", 'there is no step "never" that has ended'],
    ["input.name + 1", "string + int does not exist; use string(…)"],
    ["1 / 0", "1 cannot be divided by 0"],
    ["1.0 / 0.0", "gives Infinity, which JSON does not have"],
    ["9223372036854775807 + 1", "no 64-bit integer"],
    ["input.name ? 1 : 2", "the condition of ?: is a string"],
    ["input.count && true", "a side of && is an int"],
    ["input.name.all(x, true)", "all goes through a list, and input.name is a string"],
    ["int('x')", "int"],
    ["{'a': 1, 'a': 2}", 'has the key "a" twice'],
    ["item", '"item" is there only within a fan-out'],
    ["error.code", '"error" is there only within a fallback'],
  ])("%s: %s", (source, message) => {
    expect(failure(`\${ ${source} }`).message).toContain(message);
  });

  test("The error tells the field, the text and where in it", () => {
    expect(failure({ list: [{ "a b": "x ${ input.place.citty }" }] })).toMatchObject({
      path: 'list[0]["a b"]',
      source: " input.place.citty ",
      offset: 16,
    });
  });
});

describe("What is not an expression is refused when it is parsed", () => {
  test.each([
    ["inptu.x", '"inptu" is not known here (did you mean "input"?)'],
    ["steps[input.name].output", "must be known beforehand"],
    ["size(steps)", '"steps" stands before the name of a step'],
    ["input.name.upperAsci()", 'no function "upperAsci" (did you mean "upperAscii"?)'],
    ["input.list.map(x)", "of this form; write list.all(x, x > 0)"],
    ["1 +", "is no CEL expression"],
    ["", "the expression is empty"],
    ["99999999999999999999", "is no 64-bit integer"],
    ["a.b{c: 1}", "makes a message"],
    ["(".repeat(101) + ")".repeat(101), "nested too deeply"],
    [`${"1+".repeat(2_000)}1`, "nested too deeply"],
    ["1".repeat(17_000), "may have 16384"],
    ["input.text.split('\n')", "write a line break as \\n"],
  ])("%#: %s", (source, message) => {
    expect(() => parseTemplate(`\${${source}}`)).toThrow(message);
  });

  test("The offset counts from the beginning of the text", () => {
    expect(() => parseTemplate({ a: "city: ${ inptu }" })).toThrow(
      expect.objectContaining({ name: "ExpressionError", path: "a", offset: 9 }),
    );
  });

  test("JSON that nests too deeply is refused", () => {
    let deep: JsonValue = "x";
    for (let level = 0; level < 300; level++) deep = [deep];
    expect(() => parseTemplate(deep)).toThrow("nests deeper than 200 levels");
  });
});

describe("No expression computes without end", () => {
  test.each([
    ["input.many.map(x, input.many.map(y, x * y))", "computes too much"],
    ["input.many.exists(x, input.many.all(y, y >= 0) && false)", "computes too much"],
    ["input.many.all(x, input.many == input.many)", "computes too much"],
    ["input.many.map(x, input.big + input.big)", "and was stopped"],
    ["input.big.replace('x', input.big)", "makes too much text"],
    ["[input.big, input.big].map(x, [x, x, x, x]).map(x, [x, x, x])", "more than 16 MiB"],
    ["input.big.matches('(x+x+)+y' + input.big.substring(0, 900))", "computes too much"],
    ["input.many.all(x, input.many.all(y, 'a'.matches('(a+)+$')))", "computes too much"],
    ["input.many.all(x, input.many.all(y, x.nope || y.nope || true))", "computes too much"],
    ["input.many.map(x, input.many + input.many)", "computes too much"],
    ["input.many.all(x, timestamp(0).getHours('Europe/Berlin') >= 0)", "computes too much"],
    ["'a'.matches('(a{1,900}b{1,900}){1,2}')", "computes too much"],
    ["true || input.many.map(x, input.many.map(y, y)) == []", undefined],
  ])("%s: %s", (source, message) => {
    if (message === undefined) {
      expect(cel(source)).toBe(true);
    } else {
      expect(failure(`\${ ${source} }`).message).toContain(message);
    }
  });

  test("A list of 10,000 items is gone through", () => {
    expect(cel("size(input.many.filter(x, x % 2 == 0).map(x, {'id': x}))")).toBe(5_000);
    const row = "{'id': x, 'name': 'n' + string(x), 'even': x % 2 == 0, 'key': string(x).replace('1', '2')}";
    expect(cel(`size(input.many.map(x, ${row}))`)).toBe(10_000);
  });
});

test("Names that every object inherits are no fields", () => {
  expect(failure("${ input.constructor }").message).toContain('has no field "constructor"');
  expect(failure("${ steps.constructor.output }").message).toContain('no step "constructor"');
  expect(cel("has(input.toString)")).toBe(false);
  expect(value("${ input }", { input: JSON.parse('{"__proto__": 1}') })).toEqual(
    JSON.parse('{"__proto__": 1}'),
  );
});
