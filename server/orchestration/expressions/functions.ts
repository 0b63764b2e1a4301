import { celEnv, isCelError, isCelUint, parse, plan } from "@bufbuild/cel";
import { strings } from "@bufbuild/cel/ext";
import { isReflectMessage } from "@bufbuild/protobuf/reflect";
import type { Budget } from "./budget.ts";
import { asKey, Dict, fromCel, List, toCel, typeName, type Value } from "./values.ts";

const env = celEnv({ funcs: strings });

/** All that can be called: the functions of CEL's standard, and its extension for strings. */
export const FUNCTION_NAMES: ReadonlySet<string> = new Set(Array.from(env.funcs, ({ name }) => name));

/** A function that does not take what it was given. */
export class CallError extends Error {
  override readonly name = "CallError";
}

const INFIX: Readonly<Record<string, string>> = {
  "_+_": "+",
  "_-_": "-",
  "_*_": "*",
  "_/_": "/",
  "_%_": "%",
  "_<_": "<",
  "_<=_": "<=",
  "_>_": ">",
  "_>=_": ">=",
  "_==_": "==",
  "_!=_": "!=",
  "@in": "in",
};

const PREFIX: Readonly<Record<string, string>> = { "-_": "-", "!_": "!" };

/**
 * Calls a function or an operator. Numbers, lists, maps and equality are ours, since the library knows neither sums of
 * an int and a double nor what we read from JSON; all else is the library's. Throws a `CallError`.
 */
export function call(
  name: string,
  target: Value | undefined,
  values: readonly Value[],
  budget: Budget,
): Value {
  const args = target === undefined ? values : [target, ...values];
  const [first, second] = args;
  if (first !== undefined && args.length === 2 && second !== undefined) {
    const own = binary(name, first, second, budget);
    if (own !== undefined) return own;
  }
  if (first !== undefined && args.length === 1) {
    const own = unary(name, first);
    if (own !== undefined) return own;
  }
  return callLibrary(name, target !== undefined, args, budget);
}

function unary(name: string, value: Value): Value | undefined {
  if (name === "size" && (value instanceof List || value instanceof Dict)) return BigInt(value.size);
  if (name === "dyn") return value;
  return undefined;
}

/** Undefined: not ours. */
function binary(name: string, left: Value, right: Value, budget: Budget): Value | undefined {
  switch (name) {
    case "_==_":
      return equals(left, right, budget);
    case "_!=_":
      return !equals(left, right, budget);
    case "@in":
      return contains(right, left, budget);
    default:
      break;
  }
  if (isNumber(left) && isNumber(right)) return calculate(name, left, right);
  if (name !== "_+_") return undefined;
  if (left instanceof List && right instanceof List) return concatenate(left, right, budget);
  if (typeof left === "string" && typeof right === "string") {
    budget.spend(textCost(left) + textCost(right));
    budget.make(left.length + right.length);
    return left + right;
  }
  return undefined;
}

function isNumber(value: Value): value is bigint | number {
  return typeof value === "bigint" || typeof value === "number";
}

/** Of two ints comes an int; of two numbers of which one is a double, a double. */
function calculate(name: string, left: bigint | number, right: bigint | number): Value | undefined {
  switch (name) {
    case "_<_":
      return left < right;
    case "_<=_":
      return left <= right;
    case "_>_":
      return left > right;
    case "_>=_":
      return left >= right;
    default:
      return typeof left === "bigint" && typeof right === "bigint"
        ? calculateInts(name, left, right)
        : calculateDoubles(name, Number(left), Number(right));
  }
}

function calculateInts(name: string, left: bigint, right: bigint): bigint | undefined {
  switch (name) {
    case "_+_":
      return int64(left + right);
    case "_-_":
      return int64(left - right);
    case "_*_":
      return int64(left * right);
    case "_/_":
    case "_%_":
      if (right === 0n) throw new CallError(`${left} cannot be divided by 0`);
      return int64(name === "_/_" ? left / right : left % right);
    default:
      return undefined;
  }
}

function int64(value: bigint): bigint {
  if (BigInt.asIntN(64, value) === value) return value;
  throw new CallError("the result is no 64-bit integer; use double(…) for numbers of that size");
}

function calculateDoubles(name: string, left: number, right: number): number | undefined {
  switch (name) {
    case "_+_":
      return left + right;
    case "_-_":
      return left - right;
    case "_*_":
      return left * right;
    case "_/_":
      return left / right;
    default:
      return undefined;
  }
}

function concatenate(left: List, right: List, budget: Budget): List {
  budget.spend(ITEM_COST * (left.size + right.size));
  return List.of([...left, ...right]);
}

/** Undefined: `in` does not go with it. */
function contains(container: Value, value: Value, budget: Budget): boolean | undefined {
  if (container instanceof Dict) {
    const key = asKey(value);
    return key !== undefined && container.get(key) !== undefined;
  }
  if (!(container instanceof List)) return undefined;
  for (const item of container) {
    if (equals(item, value, budget)) return true;
  }
  return false;
}

/** Numbers are compared across types; values of other types that differ are not equal. */
function equals(left: Value, right: Value, budget: Budget): boolean {
  budget.spend(1);
  if (isCelUint(left)) return equals(left.value, right, budget);
  if (isCelUint(right)) return equals(left, right.value, budget);
  // biome-ignore lint/suspicious/noDoubleEquals: compares a bigint with a number by what they are worth.
  if (isNumber(left) && isNumber(right)) return left == right;
  if (left instanceof List) return right instanceof List && equalLists(left, right, budget);
  if (left instanceof Dict) return right instanceof Dict && equalDicts(left, right, budget);
  if (typeof left === "string") budget.spend(typeof right === "string" ? textCost(left) : 0);
  if (left instanceof Uint8Array) return right instanceof Uint8Array && Buffer.compare(left, right) === 0;
  if (isReflectMessage(left)) {
    // Timestamps and durations: the same type and the same fields.
    return (
      isReflectMessage(right) &&
      left.desc === right.desc &&
      left.fields.every((field) => left.get(field) === right.get(field))
    );
  }
  if (typeof left === "object" && left !== null)
    return typeName(left) === typeName(right) && isSameType(left, right);
  return left === right;
}

/** Of two values that stand for types. */
function isSameType(left: Value, right: Value): boolean {
  return String(left) === String(right);
}

function equalLists(left: List, right: List, budget: Budget): boolean {
  if (left.size !== right.size) return false;
  for (let index = 0; index < left.size; index++) {
    if (!equals(left.get(index) ?? null, right.get(index) ?? null, budget)) return false;
  }
  return true;
}

function equalDicts(left: Dict, right: Dict, budget: Budget): boolean {
  if (left.size !== right.size) return false;
  for (const key of left.keys()) {
    const other = right.get(key);
    if (other === undefined || !equals(left.get(key) ?? null, other, budget)) return false;
  }
  return true;
}

/** What handing a value to the library, or copying it, costs. */
const ITEM_COST = 4;

/** What a call of the library costs, besides its arguments. */
const CALL_COST = 12;

/** What calendars of time zones cost. */
const ZONE_COST = 1_000;

/** What a pattern costs: it is compiled for each match. */
const PATTERN_COST = 300;

type Planned = (args: Readonly<Record<string, Value>>) => ReturnType<ReturnType<typeof plan>>;
const planned = new Map<string, Planned>();

function callLibrary(name: string, isMethod: boolean, args: readonly Value[], budget: Budget): Value {
  charge(name, args, budget);
  const scope: Record<string, ReturnType<typeof toCel>> = {};
  for (const [index, value] of args.entries()) {
    scope[`a${index}`] = toCel(value, (each) => budget.spend(ITEM_COST + textCost(each)));
  }
  const result = planOf(name, isMethod, args.length)(scope as Record<string, Value>);
  if (isCelError(result)) throw new CallError(failure(name, isMethod, args, result.message));
  const value = fromCel(result);
  budget.make(sizeOf(value));
  budget.spend(value instanceof List ? value.size : 0);
  return value;
}

/** An expression that is the call and nothing else, its arguments being the variables a0, a1 and so on. */
function planOf(name: string, isMethod: boolean, count: number): Planned {
  const key = `${name} ${isMethod} ${count}`;
  let known = planned.get(key);
  if (known === undefined) {
    const names = Array.from({ length: count }, (_, index) => `a${index}`);
    // The library's types of variables do not go with ours, which are narrower.
    known = plan(env, parse(callSource(name, isMethod, names))) as Planned;
    // Names are those of FUNCTION_NAMES; the count of arguments is bounded only by the source's length.
    if (count <= 8) planned.set(key, known);
  }
  return known;
}

function callSource(name: string, isMethod: boolean, args: readonly string[]): string {
  const infix = INFIX[name];
  if (infix !== undefined) return args.join(` ${infix} `);
  const prefix = PREFIX[name];
  if (prefix !== undefined) return `${prefix}${args.join("")}`;
  return isMethod ? `${args[0]}.${name}(${args.slice(1).join(", ")})` : `${name}(${args.join(", ")})`;
}

function failure(name: string, isMethod: boolean, args: readonly Value[], message: string): string {
  if (!message.startsWith("found no matching overload"))
    return `${callText(name, isMethod, args)}: ${message}`;
  const types = args.map(typeName);
  const hint = name === "_+_" && types.includes("string") ? "; use string(…) for texts" : "";
  const nothing = types.includes("null") ? "; null is what a step that was skipped gives" : "";
  return `${callText(name, isMethod, args)} does not exist${hint}${nothing}`;
}

/** The call as it could have been written, with types for values. */
function callText(name: string, isMethod: boolean, args: readonly Value[]): string {
  return callSource(name, isMethod, args.map(typeName));
}

/** What a call costs beyond its arguments, before it is made. */
function charge(name: string, args: readonly Value[], budget: Budget): void {
  const [first, second, third] = args;
  budget.spend(CALL_COST);
  if (name.startsWith("get") && second !== undefined) budget.spend(ZONE_COST);
  if (typeof first === "string" && typeof second === "string") {
    // The library matches in time linear in the text, for each place of the pattern.
    if (name === "matches") budget.spend(matchCost(first, second));
    if (name === "replace" && typeof third === "string") {
      budget.make(third.length * (second === "" ? first.length + 1 : first.split(second).length - 1));
    }
  }
  if (name === "join" && first instanceof List && typeof second === "string") {
    budget.make(first.size * second.length);
  }
}

/** What it costs to go through a text. */
function textCost(value: Value): number {
  return typeof value === "string" || value instanceof Uint8Array ? Math.ceil(value.length / 8) : 0;
}

function sizeOf(value: Value): number {
  if (typeof value === "string" || value instanceof Uint8Array) return value.length;
  return value instanceof List ? value.size : 0;
}

/** The library compiles the pattern each time, repetitions written out, and goes through it for each place of the text. */
function matchCost(text: string, pattern: string): number {
  let size = pattern.length;
  for (const [, least, most] of pattern.matchAll(/\{(\d+)(?:,(\d*))?\}/g)) {
    size *= Math.max(1, Number(most || least));
  }
  return PATTERN_COST + Math.ceil(size + (text.length * size) / 4);
}
