import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TestIdentitySchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";

export type TestIdentityInit = MessageInitShape<typeof TestIdentitySchema>;

/**
 * Numbers tests of one run that are otherwise identical: frameworks let two tests of a file have the same full name.
 * Call it once for every test, in the order of their definition.
 */
export function createOccurrences(): (test: TestIdentityInit) => number {
  const seen = new Map<string, number>();
  return (test) => {
    const key = JSON.stringify([
      test.framework ?? "",
      test.project ?? "",
      test.file ?? "",
      test.suitePath ?? [],
      test.name ?? "",
      test.parameters ?? "",
      test.variant ?? "",
    ]);
    const occurrence = seen.get(key) ?? 0;
    seen.set(key, occurrence + 1);
    return occurrence;
  };
}
