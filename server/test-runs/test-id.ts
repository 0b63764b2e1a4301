import { hash } from "node:crypto";
import type { TestIdentity } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";

/**
 * The short name of a test, the same in all runs: the first 32 hexadecimal digits of SHA-256 over all parts of its
 * identity as a JSON list, so that no two identities are written alike.
 */
export function testIdOf(test: TestIdentity): string {
  return hash(
    "sha256",
    JSON.stringify([
      test.framework,
      test.project,
      test.file,
      test.suitePath,
      test.name,
      test.parameters,
      test.variant,
      test.occurrence,
    ]),
  ).slice(0, 32);
}

/** The name for people: suites and name from the outside in, with parameters. */
export function fullName(test: TestIdentity): string {
  const name = test.parameters === "" ? test.name : `${test.name}[${test.parameters}]`;
  return [...test.suitePath, name].join(" > ");
}
