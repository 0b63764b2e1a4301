import { createRegistry, type DescMessage, hasOption, type Message, type Registry } from "@bufbuild/protobuf";
import type { Path } from "@bufbuild/protobuf/reflect";
import { createValidator, type Validator } from "@bufbuild/protovalidate";
import {
  field as fieldOption,
  message as messageOption,
  oneof as oneofOption,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import type { Violations } from "./violations.ts";
import type { Segment } from "./wording.ts";

/** Called when the rules of a message cannot be checked; the message is then accepted without them. */
export type RuleWarning = (warning: { readonly typeName: string; readonly message: string }) => void;

interface Rules {
  readonly validator: Validator;
  /** Types whose rules do not compile; found out once. */
  readonly broken: WeakSet<DescMessage>;
}

const emptyRegistry = createRegistry();
const rulesByRegistry = new WeakMap<Registry, Rules>();
const ruled = new WeakMap<DescMessage, boolean>();

/** Checks the protovalidate rules that a message's own descriptor has, and reports every breach. */
export function checkRules(
  desc: DescMessage,
  message: Message,
  registry: Registry | undefined,
  violations: Violations,
  onWarning: RuleWarning | undefined,
): void {
  if (!hasRules(desc)) {
    return;
  }
  const { validator, broken } = rulesOf(registry ?? emptyRegistry);
  if (broken.has(desc)) {
    return;
  }
  const result = validator.validate(desc, message);
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
        violations.within(field.map(segment), () =>
          violations.add(
            ruleId.toUpperCase().replaceAll(/[^A-Z0-9]+/g, "_") || "RULE",
            forKey ? `key: ${text}` : text || `breaks the rule ${ruleId}`,
          ),
        );
      }
  }
}

function rulesOf(registry: Registry): Rules {
  let rules = rulesByRegistry.get(registry);
  if (rules === undefined) {
    rules = { validator: createValidator({ registry }), broken: new WeakSet() };
    rulesByRegistry.set(registry, rules);
  }
  return rules;
}

/** Whether the message or one that it can hold has rules: making a validator ready costs milliseconds. */
function hasRules(desc: DescMessage): boolean {
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
    known = [...reachable].some(hasOwnRules);
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

function segment(element: Path[number]): Segment {
  switch (element.kind) {
    case "field":
      return element.jsonName;
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
