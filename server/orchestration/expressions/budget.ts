/**
 * How much one template may compute, in nodes of expressions and what takes as long: about 0.1 µs each, so that no template
 * keeps the process from other work for much longer than 100 ms.
 */
const MAX_STEPS = 1_000_000;

/** What an error costs that another operand makes irrelevant: it has a message, with guesses at what was meant. */
export const ERROR_COST = 200;

/** How many characters and items the calls of one template may make, all together. */
const MAX_MADE = 64 * 1024 * 1024;

/** An expression was stopped because it computes too much. No `||` or `?:` gets over it. */
export class BudgetError extends Error {
  override readonly name = "BudgetError";

  constructor(what: string) {
    super(`${what}; filter lists with a tool, or divide the work among steps or the items of a fan-out`);
  }
}

/**
 * Counts what the evaluation of one template does, so that none keeps the process from other work for long: macros can
 * be nested, and go through lists of any length.
 */
export class Budget {
  #steps = 0;
  #made = 0;

  spend(steps: number): void {
    this.#steps += steps;
    if (this.#steps > MAX_STEPS) throw new BudgetError("computes too much, and was stopped");
  }

  make(size: number): void {
    this.#made += size;
    if (this.#made > MAX_MADE) throw new BudgetError("makes too much text, and was stopped");
  }
}
