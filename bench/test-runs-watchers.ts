// Many watchers of one test run, in a process of their own. Half of them begin late, some stall, some lose their
// connection again and again. Prints "watching" when the early ones have caught up, and at the end one JSON object.
//
// Arguments: the server's URL, the run, how many watchers.
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { TestRunService } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";

export interface Watched {
  /** How many watchers ended with the whole sequence. */
  readonly complete: number;
  /** How many different sequences there were. */
  readonly different: number;
  readonly events: number;
  readonly seconds: number;
}

type Kind = "early" | "late" | "stalled" | "reconnecting";

/** So many watchers share a connection. */
const PER_CONNECTION = 100;

const [url = "", runId = "", count = "0"] = process.argv.slice(2);
const watchers = Number(count);
const sessions = Array.from(
  { length: Math.ceil(watchers / PER_CONNECTION) },
  () => new Http2SessionManager(url),
);
const clients = sessions.map((sessionManager) =>
  createClient(TestRunService, createGrpcTransport({ baseUrl: url, sessionManager })),
);
const release = Promise.withResolvers<void>();
let caughtUp = 0;

function kindOf(index: number): Kind {
  if (index % 2 === 1) return "late";
  return index % 10 === 0 ? "stalled" : index % 10 === 2 ? "reconnecting" : "early";
}

/** Follows the run to its end, and returns how many events it was told and what identifies them. */
async function watch(
  client: Client<typeof TestRunService>,
  kind: Kind,
): Promise<{ events: number; digest: string }> {
  const digest = createHash("sha256");
  let after = 0n;
  let marked = false;
  for (;;) {
    const leave = new AbortController();
    const stopAfter =
      kind === "reconnecting" ? after + BigInt(500 + Math.floor(Math.random() * 2_000)) : undefined;
    try {
      for await (const { kind: told } of client.watchTestRun(
        { runId, afterSequence: after },
        { signal: leave.signal },
      )) {
        if (told.case === "caughtUp" && !marked) {
          marked = true;
          caughtUp += 1;
          if (kind === "stalled") {
            await release.promise;
          }
        }
        for (const event of told.case === "events" ? told.value.events : []) {
          if (event.sequence !== after + 1n) {
            throw new Error(`after ${after} came ${event.sequence}`);
          }
          after = event.sequence;
          digest.update(`${event.sequence} ${event.kind.case} `);
          if (event.kind.case === "ended") {
            return { events: Number(after), digest: digest.digest("hex") };
          }
        }
        if (stopAfter !== undefined && after >= stopAfter) {
          leave.abort();
        }
      }
    } catch (error) {
      if (!leave.signal.aborted) {
        throw error;
      }
    }
  }
}

const began = performance.now();
const results: Promise<{ events: number; digest: string }>[] = [];
function begin(late: boolean): void {
  for (let index = 0; index < watchers; index++) {
    const client = clients[index % clients.length];
    if (client !== undefined && (kindOf(index) === "late") === late) {
      results.push(watch(client, kindOf(index)));
    }
  }
}

begin(false);
while (caughtUp < watchers / 2) {
  await sleep(20);
}
console.log("watching");
process.stdin.once("data", () => begin(true)); // half of the events are there
process.stdin.on("data", (data) => {
  if (data.toString().includes("release")) {
    release.resolve();
  }
});
while (results.length < watchers) {
  await sleep(20);
}
const ended = await Promise.all(results);
const digests = new Set(ended.map(({ digest }) => digest));
const watched: Watched = {
  complete: ended.length,
  different: digests.size,
  events: Math.max(...ended.map(({ events }) => events)),
  seconds: (performance.now() - began) / 1_000,
};
console.log(JSON.stringify(watched));
for (const session of sessions) {
  session.abort();
}
process.exit(0);
