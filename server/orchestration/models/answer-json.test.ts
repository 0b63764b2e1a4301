import { expect, test } from "vitest";
import { answerOutput } from "./answer-json.ts";

test.each([
  ["an object", '{"a": 1}', { a: 1 }],
  ["a list with space around", ' \n[1, "b", null]\n', [1, "b", null]],
  ["a number", "42", 42],
  ["a fence", '```json\n{"a": 1}\n```', { a: 1 }],
  ["a fence within words", 'Here it is:\n\n```json\r\n{\n"a": 1}\r\n```\n\nEnjoy.', { a: 1 }],
  ["a fence without a language that is all there is", '```\n{"a": 1}\n```', { a: 1 }],
])("an answer that is %s has it as JSON too", (_, text, json) => {
  expect(answerOutput(text)).toEqual({ text, json });
});

test.each([
  ["words", "It is sunny."],
  ["nothing", ""],
  ["two fences", "```json\n1\n```\n```json\n2\n```"],
  ["a fence that never ends", '```json\n{"a": 1}'],
  ["a fence of something else", "```ts\nlet a;\n```"],
  ["a fence with mistakes", '```json\n{"a": }\n```'],
  ["a number that JSON does not have", "[1e999]"],
  ["what nests too deep to be recorded", `${"[".repeat(60)}${"]".repeat(60)}`],
])("an answer that is %s is only text", (_, text) => {
  expect(answerOutput(text)).toEqual({ text });
});
