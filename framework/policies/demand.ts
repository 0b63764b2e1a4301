/**
 * Refuses numbers below a minimum, and NaN, which is below nothing and above nothing: a policy that takes it waits for
 * ever, or not at all.
 *
 * @param policy whose options they are, such as `a retrier`
 * @throws RangeError names the option
 */
export function demandAtLeast(
  policy: string,
  minimum: number,
  options: Readonly<Record<string, number>>,
): void {
  for (const [name, value] of Object.entries(options)) {
    if (!(value >= minimum)) {
      throw new RangeError(`${name} of ${policy} must be at least ${minimum}, not ${value}`);
    }
  }
}

/** As `demandAtLeast`, for what comes in pieces. `Infinity` is no limit. */
export function demandWhole(
  policy: string,
  minimum: number,
  options: Readonly<Record<string, number>>,
): void {
  demandAtLeast(policy, minimum, options);
  for (const [name, value] of Object.entries(options)) {
    if (!Number.isInteger(value) && value !== Number.POSITIVE_INFINITY) {
      throw new RangeError(`${name} of ${policy} must be a whole number, not ${value}`);
    }
  }
}
