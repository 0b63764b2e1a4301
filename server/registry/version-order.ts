/**
 * Orders version strings, highest last. Semantic versions are compared by the rules of semver 2.0.0 (section 11), with
 * missing numbers read as zero; anything else comes before them, in code-unit order. Build metadata only breaks ties,
 * so that the order is total.
 */
export function compareVersions(left: string, right: string): number {
  const a = parse(left);
  const b = parse(right);
  if (!a || !b) {
    return a ? 1 : b ? -1 : compareText(left, right);
  }
  return (
    compareLists(a.numbers, b.numbers, compareNumerals) ||
    comparePrereleases(a.prerelease, b.prerelease) ||
    compareText(left, right)
  );
}

/** Compares by UTF-16 code units: the same on every machine, whatever its locale. */
export function compareText(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}

interface ParsedVersion {
  readonly numbers: readonly string[];
  readonly prerelease: readonly string[];
}

const VERSION = /^v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$/;

function parse(version: string): ParsedVersion | undefined {
  const match = VERSION.exec(version);
  if (!match) {
    return undefined;
  }
  const [, major = "0", minor = "0", patch = "0", prerelease] = match;
  return { numbers: [major, minor, patch], prerelease: prerelease?.split(".") ?? [] };
}

/** A version without a prerelease is higher than the same version with one. */
function comparePrereleases(left: readonly string[], right: readonly string[]): number {
  if (left.length === 0 || right.length === 0) {
    return Number(right.length > 0) - Number(left.length > 0);
  }
  return compareLists(left, right, compareIdentifiers);
}

function compareIdentifiers(left: string, right: string): number {
  const leftIsNumber = /^\d+$/.test(left);
  const rightIsNumber = /^\d+$/.test(right);
  if (leftIsNumber && rightIsNumber) {
    return compareNumerals(left, right);
  }
  return Number(rightIsNumber) - Number(leftIsNumber) || compareText(left, right);
}

/** Compares decimal numerals of any length, so that a build timestamp beyond 2^53 keeps its order. */
function compareNumerals(left: string, right: string): number {
  const a = left.replace(/^0+(?=\d)/, "");
  const b = right.replace(/^0+(?=\d)/, "");
  return a.length - b.length || compareText(a, b);
}

function compareLists(
  left: readonly string[],
  right: readonly string[],
  compare: (left: string, right: string) => number,
): number {
  for (const [index, item] of left.entries()) {
    const other = right[index];
    if (other === undefined) {
      return 1;
    }
    const order = compare(item, other);
    if (order !== 0) {
      return order;
    }
  }
  return left.length - right.length;
}
