import { didYouMean } from "../../schema/wording.ts";
import type { LinkedStep } from "./graph.ts";
import {
  type ExpressionPart,
  type StepParts,
  stepExpressions,
  type TemplatePart,
  templateExpressions,
} from "./parts.ts";
import type { Problems } from "./problems.ts";

/** Of further problems, none says which step was meant: each such guess takes time in proportion to the steps. */
const MAX_SUGGESTED = 100;

/** How many steps all steps together may come after. A step that comes after 900 others counts as 900. */
const MAX_DEPENDENCIES = 50_000;

/** How many cycles are told of; steps may make more of them than anybody can read. */
const MAX_CYCLES = 20;

/** How many steps of a cycle are named. */
const MAX_NAMED = 20;

/** Which steps there are, by id; of those with the same, the first. */
export function indexSteps(steps: readonly StepParts[], problems: Problems): Map<string, StepParts> {
  const byId = new Map<string, StepParts>();
  for (const parts of steps) {
    const { id } = parts.step;
    const other = byId.get(id);
    if (other === undefined) {
      byId.set(id, parts);
    } else if (id !== "") {
      problems.add({
        reason: "DUPLICATE_STEP",
        field: `${parts.field}.id`,
        stepId: id,
        message: `"${id}" is also the id of ${other.field}; give one of them another`,
      });
    }
  }
  return byId;
}

/** What each step comes after. Reports steps that there are not, and steps that name themselves. */
export function linkSteps(byId: ReadonlyMap<string, StepParts>, problems: Problems): LinkedStep[] {
  let count = 0;
  return Array.from(byId.values(), (parts) => {
    const after = new Map<string, boolean>();
    const { step, field } = parts;
    if (count > MAX_DEPENDENCIES) return { step, after };
    for (const [index, id] of step.dependsOn.entries()) {
      if (checkReference(id, `${field}.depends_on[${index}]`, step.id, byId, problems)) after.set(id, false);
    }
    for (const part of stepExpressions(parts)) {
      for (const id of part.expression.references.steps) {
        if (checkReference(id, part.field, step.id, byId, problems)) after.set(id, true);
      }
    }
    count += after.size;
    if (count > MAX_DEPENDENCIES) {
      problems.add({
        reason: "TOO_MANY_DEPENDENCIES",
        field: `${field}.depends_on`,
        stepId: step.id,
        message: `up to here steps come after ${count} others in all, and may come after ${MAX_DEPENDENCIES}; name only the nearest, or put a step between that joins them`,
      });
    }
    return { step, after };
  });
}

/** Reports what the output of the workflow names and there is not. */
export function checkOutputReferences(
  output: TemplatePart,
  byId: ReadonlyMap<string, StepParts>,
  problems: Problems,
): void {
  for (const { field, expression } of templateExpressions(output)) {
    for (const id of expression.references.steps) checkReference(id, field, undefined, byId, problems);
  }
}

function checkReference(
  id: string,
  field: string,
  stepId: string | undefined,
  byId: ReadonlyMap<string, StepParts>,
  problems: Problems,
): boolean {
  if (id === stepId) {
    const message = `the step "${id}" comes after itself; name the step that it needs`;
    problems.add({ reason: "SELF_REFERENCE", field, stepId, message });
    return false;
  }
  if (byId.has(id)) return true;
  const meant =
    problems.all.length < MAX_SUGGESTED
      ? didYouMean(
          id,
          [...byId.keys()].filter((other) => other !== stepId),
        )
      : "";
  const message = `there is no step "${id}"${meant}; name one that there is, or add it`;
  problems.add({ reason: "UNKNOWN_STEP", field, stepId, message });
  return false;
}

/** Reports cycles, each once. True: there is none. */
export function checkCycles(
  linked: readonly LinkedStep[],
  byId: ReadonlyMap<string, StepParts>,
  problems: Problems,
): boolean {
  const after = new Map(linked.map(({ step, after: before }) => [step.id, [...before.keys()]]));
  const state = new Map<string, "open" | "done">();
  let count = 0;
  for (const { step } of linked) {
    for (const cycle of cyclesFrom(step.id, after, state)) {
      if (++count > MAX_CYCLES) return false;
      const [first = ""] = cycle;
      const parts = byId.get(first);
      const data = linked.find((each) => each.step.id === first)?.after.get(cycle[1] ?? first);
      problems.add({
        reason: "CYCLE",
        field: parts === undefined ? "steps" : data ? parts.field : `${parts.field}.depends_on`,
        stepId: first,
        message: `steps come after each other in a circle: ${wordCycle(cycle)}; take one of these out`,
      });
    }
  }
  return count === 0;
}

function wordCycle(cycle: readonly string[]): string {
  const named = cycle.slice(0, MAX_NAMED).map((id) => `"${id}"`);
  if (cycle.length > MAX_NAMED) named.push(`${cycle.length - MAX_NAMED} more`);
  return [...named, `"${cycle[0] ?? ""}"`].join(" after ");
}

/** Goes through what comes before, depth first, without recursion: a chain may be 1,000 steps long. */
function* cyclesFrom(
  start: string,
  after: ReadonlyMap<string, readonly string[]>,
  state: Map<string, "open" | "done">,
): Generator<string[]> {
  if (state.has(start)) return;
  const path = [{ id: start, next: 0 }];
  state.set(start, "open");
  for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
    const before = after.get(top.id)?.[top.next++];
    if (before === undefined) {
      state.set(top.id, "done");
      path.pop();
    } else if (state.get(before) === "open") {
      const from = path.findIndex(({ id }) => id === before);
      yield path.slice(from).map(({ id }) => id);
    } else if (!state.has(before)) {
      state.set(before, "open");
      path.push({ id: before, next: 0 });
    }
  }
}

/** Reports variables that are not there where they are named. */
export function checkVariables(part: ExpressionPart, stepId: string | undefined, problems: Problems): void {
  const { variables } = part.expression.references;
  const add = (message: string) =>
    problems.add({ reason: "OUT_OF_SCOPE", field: part.field, stepId, message });
  for (const name of ["item", "index"]) {
    if (variables.has(name) && !part.scope.hasItem) {
      add(
        `"${name}" is there only in what a step with for_each does, not in its condition or its list; give the step a for_each`,
      );
    }
  }
  if (variables.has("error") && !part.scope.hasError) {
    add('"error" is there only in a fallback; what a step before failed with is steps.name.error');
  }
}
