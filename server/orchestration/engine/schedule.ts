import { invalidArgument } from "@toolplane/framework";
import type { PlanStep } from "../plan.ts";
import type { StepEnd } from "./step.ts";

/** What is to be done about a step whose dependencies have all ended. */
export type Turn =
  /** It may begin; its condition is not yet known. */
  | { readonly kind: "begin"; readonly step: PlanStep }
  /** It is not to run: see `StepEnd`. */
  | { readonly kind: "skip"; readonly step: PlanStep; readonly cause: "condition" | "failure" };

/** How a step ended, as far as others depend on it. */
export type Ending = Pick<StepEnd, "state"> & { readonly cause?: "condition" | "failure" | undefined };

/** Decides what happens when to the steps of one run. Knows no time and does nothing itself. */
export interface Schedule {
  /** The steps whose turn has come since the last call. Each step comes once; whoever asks must `end` it. */
  next(): readonly Turn[];
  /** A step has ended, and that is durable where others may rely on it. */
  end(id: string, ending: Ending): void;
  /** Every step has ended. */
  readonly isOver: boolean;
  /**
   * The step whose failure makes the run fail: of those nearest to the beginning of the graph the first, whichever failed
   * first in time. Undefined: none.
   */
  readonly failure: string | undefined;
}

interface Node {
  readonly step: PlanStep;
  readonly position: number;
  readonly dependents: Node[];
  /** How many steps come before it in the longest chain. */
  level: number;
  /** Dependencies that have not ended. */
  open: number;
  /** A dependency failed, or was skipped because of a failure. */
  blocked: boolean;
  ended: boolean;
}

/**
 * Takes time and memory for each step and dependency once over a whole run. Steps come in the order in which their last
 * dependency ended, and in that of the plan where it is the same one.
 *
 * Throws INVALID_ARGUMENT for steps that come after unknown ones or after themselves.
 */
export function createSchedule(steps: readonly PlanStep[]): Schedule {
  const nodes = connect(steps);
  let turns: Turn[] = [];
  let left = steps.length;
  let failure: Node | undefined;

  function release(node: Node): void {
    turns.push(turnOf(node));
  }

  for (const node of nodes.values()) {
    if (node.open === 0) {
      release(node);
    }
  }

  return {
    next() {
      const given = turns;
      turns = [];
      return given;
    },
    end(id, ending) {
      const node = nodes.get(id);
      if (node === undefined || node.ended || node.open > 0) {
        throw new RangeError(`step "${id}" cannot end: it is unknown, has ended, or could not begin`);
      }
      node.ended = true;
      left -= 1;
      const failed = hasFailed(node.step, ending);
      if (failed && (failure === undefined || isBefore(node, failure))) {
        failure = node;
      }
      const blocks = failed || (ending.state === "skipped" && ending.cause === "failure");
      for (const dependent of node.dependents) {
        dependent.blocked ||= blocks;
        dependent.open -= 1;
        if (dependent.open === 0) {
          release(dependent);
        }
      }
    },
    get isOver() {
      return left === 0;
    },
    get failure() {
      return failure?.step.id;
    },
  };
}

function turnOf({ step, blocked }: Node): Turn {
  switch (step.trigger) {
    case "success":
      return blocked ? { kind: "skip", step, cause: "failure" } : { kind: "begin", step };
    case "failure":
      // Nothing went wrong: what comes after it goes on.
      return blocked ? { kind: "begin", step } : { kind: "skip", step, cause: "condition" };
    case "always":
      return { kind: "begin", step };
  }
}

function hasFailed({ continueOnFailure }: PlanStep, { state }: Ending): boolean {
  return (state === "failed" || state === "cancelled") && !continueOnFailure;
}

function isBefore(one: Node, other: Node): boolean {
  return one.level === other.level ? one.position < other.position : one.level < other.level;
}

function connect(steps: readonly PlanStep[]): ReadonlyMap<string, Node> {
  const nodes = new Map<string, Node>();
  for (const [position, step] of steps.entries()) {
    nodes.set(step.id, {
      step,
      position,
      dependents: [],
      level: 0,
      open: 0,
      blocked: false,
      ended: false,
    });
  }
  for (const node of nodes.values()) {
    for (const id of new Set(node.step.dependsOn)) {
      const before = nodes.get(id);
      if (before === undefined) {
        throw badOrder(node.step.id, `comes after step "${id}", which does not exist`);
      }
      before.dependents.push(node);
      node.open += 1;
    }
  }
  setLevels(nodes);
  return nodes;
}

/** In an order in which each step comes after all that it depends on; steps in a circle never come. */
function setLevels(nodes: ReadonlyMap<string, Node>): void {
  const open = new Map([...nodes.values()].map((node) => [node, node.open]));
  const sorted = [...nodes.values()].filter((node) => node.open === 0);
  // An array that grows while it is walked through is walked through to its end.
  for (const node of sorted) {
    for (const dependent of node.dependents) {
      dependent.level = Math.max(dependent.level, node.level + 1);
      const left = (open.get(dependent) ?? 0) - 1;
      open.set(dependent, left);
      if (left === 0) {
        sorted.push(dependent);
      }
    }
  }
  if (sorted.length < nodes.size) {
    const circle = [...nodes.values()].find((node) => (open.get(node) ?? 0) > 0);
    throw badOrder(circle?.step.id ?? "", "comes after itself, or after steps that do");
  }
}

function badOrder(id: string, problem: string): Error {
  return invalidArgument([{ field: "steps", description: `step "${id}" ${problem}`, reason: "STEP_ORDER" }]);
}
