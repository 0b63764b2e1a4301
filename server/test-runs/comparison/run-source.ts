import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { TestRunFilter } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { Database } from "../../storage/database.ts";
import { runConditions, type TestRunQueries } from "../queries.ts";
import type { RunResults } from "../run-results.ts";

/** Where comparisons get runs from. */
export interface RunSource {
  /** Undefined: there is no such run. */
  load(runId: string): Promise<RunResults | undefined>;
  /** The ids of the latest runs that ended and match, the newest first; those in `except` left out. */
  latest(filter: TestRunFilter, count: number, except: readonly string[]): Promise<string[]>;
}

/** The runs that are kept in the database. */
export function storedRuns({
  database,
  queries,
}: {
  readonly database: Pick<Database, "kysely">;
  readonly queries: Pick<TestRunQueries, "loadRunResults">;
}): RunSource {
  return {
    async load(runId) {
      try {
        return await queries.loadRunResults(runId);
      } catch (error) {
        if (error instanceof DomainError && error.init.code === Code.NotFound) {
          return undefined;
        }
        throw error;
      }
    },

    async latest(filter, count, except) {
      let query = database.kysely
        .selectFrom("test_runs")
        .select("id")
        .where("end_time", "is not", null)
        .$if(except.length > 0, (some) => some.where("id", "not in", [...except]))
        .orderBy("number", "desc")
        .limit(count);
      for (const condition of runConditions(filter)) {
        query = query.where(condition);
      }
      return (await query.execute()).map(({ id }) => id);
    },
  };
}
