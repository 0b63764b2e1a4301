import { fromBinary } from "@bufbuild/protobuf";
import {
  type TestIdentity,
  TestIdentitySchema,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { type Kysely, sql } from "kysely";
import type { Tables } from "../../storage/tables.ts";
import { readIdentity } from "../run-writer.ts";

/** Finds tests that were reported before. */
export interface TestLookup {
  /** The tests that failed in a run, at most `limit`. Throws NOT_FOUND for an unknown run. */
  failedIn(
    runId: string,
    limit: number,
  ): Promise<{ readonly project: string; readonly tests: TestIdentity[] }>;
  /** By test id; tests that the project never had are missing. */
  byIds(project: string, testIds: readonly string[]): Promise<ReadonlyMap<string, TestIdentity>>;
}

/** To run again what failed means these. */
const FAILED = [TestStatus.FAILED, TestStatus.UNEXPECTED_PASS, TestStatus.ERROR, TestStatus.INTERRUPTED];

export function createTestLookup({ kysely }: { readonly kysely: Kysely<Tables> }): TestLookup {
  return {
    async failedIn(runId, limit) {
      const { number, project } = await readIdentity(kysely, runId);
      const rows = await kysely
        .selectFrom("test_results")
        .select("identity")
        .where("run", "=", String(number))
        .where("status", "in", FAILED)
        .orderBy("file")
        .orderBy("name")
        .limit(limit)
        .execute();
      return { project, tests: rows.map(({ identity }) => fromBinary(TestIdentitySchema, identity)) };
    },

    async byIds(project, testIds) {
      const { rows } = await sql<{ test_id: string; identity: Buffer }>`
        SELECT wanted.test_id, found.identity
        FROM unnest(${[...new Set(testIds)]}::uuid[]) AS wanted (test_id)
        CROSS JOIN LATERAL (
          SELECT results.identity FROM test_results AS results JOIN test_runs AS runs ON runs.number = results.run
          WHERE results.test_id = wanted.test_id AND runs.project = ${project} LIMIT 1
        ) AS found
      `.execute(kysely);
      return new Map(
        rows.map((row) => [row.test_id.replaceAll("-", ""), fromBinary(TestIdentitySchema, row.identity)]),
      );
    },
  };
}
