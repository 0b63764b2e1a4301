import { hash } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TestIdentitySchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";

export type TestIdentityInit = MessageInitShape<typeof TestIdentitySchema>;

/**
 * Numbers tests of one run that are otherwise identical: frameworks let two tests of a file have the same full name.
 * Call it once for every test, in the order of their definition. Of each it remembers no more than a hash: there are runs
 * with a million tests, and names of many kilobytes.
 */
export function createOccurrences(): (test: TestIdentityInit) => number {
  const seen = new Map<string, number>();
  return (test) => {
    const identity = JSON.stringify([
      test.framework ?? "",
      test.project ?? "",
      test.file ?? "",
      test.suitePath ?? [],
      test.name ?? "",
      test.parameters ?? "",
      test.variant ?? "",
    ]);
    // 72 bits: that two of a million tests come to the same is one chance in ten thousand million. V8 copies what is cut out
    // of a string up to 12 characters, and keeps the whole string for more.
    const key = hash("sha256", identity, "base64").slice(0, 12);
    const occurrence = seen.get(key) ?? 0;
    seen.set(key, occurrence + 1);
    return occurrence;
  };
}
