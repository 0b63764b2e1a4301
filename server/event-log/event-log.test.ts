import { systemClock } from "@toolplane/framework";
import { expect, it, onTestFinished } from "vitest";
import { silentLogger } from "../storage/silent-logger.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { openEventLog } from "./open-event-log.ts";

it("tells what is appended, in order", async () => {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const log = await openEventLog({ database, clock: systemClock, logger: silentLogger });
  onTestFinished(() => log.close());
  await database.kysely.transaction().execute((tx) => log.create(tx, "run"));
  await log.append({
    stream: "run",
    events: [Buffer.from("a"), Buffer.from("b")],
    writer: { name: "w", firstPosition: 1 },
  });
  expect(
    await log.append({
      stream: "run",
      events: [Buffer.from("b"), Buffer.from("c")],
      writer: { name: "w", firstPosition: 2 },
      close: true,
    }),
  ).toEqual({ lastSequence: 3, position: 3 });
  const news: string[] = [];
  for await (const item of log.watch("run", { signal: new AbortController().signal })) {
    news.push(item.kind === "events" ? item.page.events.map(String).join("") : item.kind);
  }
  expect(news).toEqual(["abc", "caught-up"]);
});
