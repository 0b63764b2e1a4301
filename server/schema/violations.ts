import type { FieldViolation } from "@toolplane/framework";
import { printPath, type Segment } from "./wording.ts";

/**
 * How many violations one check reports before it stops. They travel in the trailers of a response, which clients
 * accept only up to some size.
 */
export const MAX_VIOLATIONS = 50;

/** Ends a check that has found enough. */
const enough = Symbol("enough violations");

/** Where a check of a JSON value is, and what it has found. The path is printed only when something is wrong. */
export class Violations {
  readonly #found: FieldViolation[] = [];
  readonly #root: string;
  readonly #path: Segment[] = [];

  /** `root` is the path of the value that is checked. */
  constructor(root: string) {
    this.#root = root;
  }

  /** What was found by `check`, which is ended early when it finds more than `MAX_VIOLATIONS`. */
  static of(root: string, check: (violations: Violations) => void): readonly FieldViolation[] {
    const violations = new Violations(root);
    try {
      check(violations);
    } catch (error) {
      if (error !== enough) {
        throw error;
      }
    }
    return violations.#found;
  }

  get isEmpty(): boolean {
    return this.#found.length === 0;
  }

  /** Checks a part of the value; what is wrong with it is reported under its path. */
  within(part: Segment | readonly Segment[], check: () => void): void {
    const depth = this.#path.length;
    this.#path.push(...(Array.isArray(part) ? part : [part]));
    check();
    this.#path.length = depth;
  }

  add(reason: string, description: string): void {
    if (this.#found.length === MAX_VIOLATIONS) {
      this.#found.push({
        field: this.#root,
        reason: "TOO_MANY_VIOLATIONS",
        description: `there are more than ${MAX_VIOLATIONS} problems; the rest was not checked`,
      });
      throw enough;
    }
    this.#found.push({ field: printPath(this.#root, this.#path), reason, description });
  }
}
