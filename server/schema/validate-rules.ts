import {
  create,
  createRegistry,
  type DescMessage,
  getOption,
  hasOption,
  type Message,
  type Registry,
} from "@bufbuild/protobuf";
import type { Path } from "@bufbuild/protobuf/reflect";
import { createValidator, type Validator } from "@bufbuild/protovalidate";
import {
  type FieldRules,
  field as fieldOption,
  message as messageOption,
  oneof as oneofOption,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { wordRule } from "@toolplane/framework";
import { withTimeLimit } from "./time-limit.ts";
import type { Violations } from "./violations.ts";
import { type FieldNames, nameOf, type Segment } from "./wording.ts";

/**
 * How long one check may take, in milliseconds. Rules are programs (CEL) that come with the tool: loops in loops over a
 * long list would keep the process busy for ever.
 */
const MAX_CHECK_MS = 250;
/** How long the first check of a type may take, which compiles its rules. */
const MAX_COMPILE_MS = 5_000;

/** Called when the rules of a message cannot be checked; the message is then accepted without them. */
export type RuleWarning = (warning: { readonly typeName: string; readonly message: string }) => void;

interface Rules {
  readonly validator: Validator;
  /** Types whose rules have been compiled within a limit of time. */
  readonly compiled: WeakSet<DescMessage>;
  /** Types whose rules do not compile; found out once. */
  readonly broken: WeakSet<DescMessage>;
}

const emptyRegistry = createRegistry();
const rulesByRegistry = new WeakMap<Registry, Rules>();
const ruled = new WeakMap<DescMessage, "none" | "fixed" | "programs">();

/** Checks the protovalidate rules that a message's own descriptor has, and reports every breach. */
export function checkRules(
  desc: DescMessage,
  message: Message,
  registry: Registry | undefined,
  violations: Violations,
  onWarning: RuleWarning | undefined,
  names: FieldNames = "json",
): void {
  const kind = kindOfRules(desc);
  if (kind === "none") {
    return;
  }
  const { validator, broken, compiled } = rulesOf(registry ?? emptyRegistry);
  if (broken.has(desc)) {
    return;
  }
  if (kind === "programs" && !compiled.has(desc)) {
    compiled.add(desc);
    if (!withTimeLimit(MAX_COMPILE_MS, () => validator.validate(desc, create(desc)))) {
      broken.add(desc);
      onWarning?.({ typeName: desc.typeName, message: "the rules take too long even for an empty message" });
      return;
    }
  }
  const validate = () => validator.validate(desc, message);
  // The limit costs more than most checks.
  const checked = kind === "programs" ? withTimeLimit(MAX_CHECK_MS, validate) : { value: validate() };
  if (checked === undefined) {
    violations.add("RULES_TOO_COMPLEX", "cannot be checked: the tool's rules take too long for this value");
    return;
  }
  const result = checked.value;
  switch (result.kind) {
    case "valid":
      return;
    case "error":
      if (result.error.name === "CompilationError") {
        broken.add(desc);
      }
      onWarning?.({ typeName: desc.typeName, message: result.error.message });
      return;
    case "invalid":
      for (const { field, forKey, message: text, ruleId } of result.violations) {
        violations.within(
          field.map((element) => segment(element, names)),
          () =>
            violations.add(
              ruleId.toUpperCase().replaceAll(/[^A-Z0-9]+/g, "_") || "RULE",
              forKey ? `key: ${wordRule(text)}` : wordRule(text) || `breaks the rule ${ruleId}`,
            ),
        );
      }
  }
}

function rulesOf(registry: Registry): Rules {
  let rules = rulesByRegistry.get(registry);
  if (rules === undefined) {
    rules = { validator: createValidator({ registry }), compiled: new WeakSet(), broken: new WeakSet() };
    rulesByRegistry.set(registry, rules);
  }
  return rules;
}

/** The rules of the message and those that it can hold. Without any, no validator is made ready, which takes milliseconds. */
function kindOfRules(desc: DescMessage): "none" | "fixed" | "programs" {
  let known = ruled.get(desc);
  if (known === undefined) {
    const reachable = new Set([desc]);
    for (const message of reachable) {
      for (const field of message.fields) {
        if (field.message !== undefined) {
          reachable.add(field.message);
        }
      }
    }
    const all = [...reachable];
    known = all.some(hasPrograms) ? "programs" : all.some(hasOwnRules) ? "fixed" : "none";
    ruled.set(desc, known);
  }
  return known;
}

function hasOwnRules(desc: DescMessage): boolean {
  return (
    hasOption(desc, messageOption) ||
    desc.fields.some((field) => hasOption(field, fieldOption)) ||
    desc.oneofs.some((oneof) => hasOption(oneof, oneofOption))
  );
}

/** Whether the message's own rules contain expressions, whose evaluation can take any time. */
function hasPrograms(desc: DescMessage): boolean {
  const { cel, celExpression } = getOption(desc, messageOption);
  return (
    cel.length > 0 ||
    celExpression.length > 0 ||
    desc.fields.some((field) => hasExpressions(getOption(field, fieldOption)))
  );
}

function hasExpressions({ cel, celExpression, type }: FieldRules): boolean {
  if (cel.length > 0 || celExpression.length > 0) {
    return true;
  }
  // Predefined rules are extensions, and expressions too.
  if (type.value?.$unknown?.length) {
    return true;
  }
  const parts =
    type.case === "repeated"
      ? [type.value.items]
      : type.case === "map"
        ? [type.value.keys, type.value.values]
        : [];
  return parts.some((part) => part !== undefined && hasExpressions(part));
}

function segment(element: Path[number], names: FieldNames): Segment {
  switch (element.kind) {
    case "field":
      return nameOf(element, names);
    case "extension":
      return `[${element.typeName}]`;
    case "oneof":
      return element.name;
    case "list_sub":
      return element.index;
    case "map_sub":
      return { key: String(element.key) };
  }
}
