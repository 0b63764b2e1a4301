import { sql } from "kysely";
import { describe, expect, it } from "vitest";
import { openTestDatabase } from "./testing.ts";

describe("a database", () => {
  it("answers, and runs queries", async () => {
    const database = await openTestDatabase({ migrations: [] });
    await database.ping();
    const { rows } = await sql<{ two: number }>`select 1 + 1 as two`.execute(database.kysely);
    expect(rows).toEqual([{ two: 2 }]);
    await database.close();
  });
});
