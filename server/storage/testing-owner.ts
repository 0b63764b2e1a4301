// A process for tests to kill: it owns the private PostgreSQL of the data directory in its first argument, and tells its
// parent over IPC when it is "open" and then, if the second argument is "insert", the number of each row that has been
// acknowledged. It ends cleanly when asked to "close".
import { flushCompileCache } from "node:module";
import { sql } from "kysely";
import { openDatabase } from "./database.ts";
import { silentLogger } from "./silent-logger.ts";

// Written when a process ends by itself, which one that is killed does not.
flushCompileCache();
const [dataDir = "", task] = process.argv.slice(2);
const database = await openDatabase({ dataDir, logger: silentLogger, migrations: [] });
process.on("message", async () => {
  await database.close();
  process.exit();
});
process.send?.("open");

if (task === "insert") {
  await sql`create table if not exists acknowledged (id bigint generated always as identity)`.execute(
    database.kysely,
  );
  for (;;) {
    const { rows } = await sql<{ id: string }>`insert into acknowledged default values returning id`.execute(
      database.kysely,
    );
    process.send?.(rows[0]?.id);
  }
}
