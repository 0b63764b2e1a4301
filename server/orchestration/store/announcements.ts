import { type Kysely, sql } from "kysely";
import type { Database } from "../../storage/database.ts";
import type { Tables } from "../../storage/tables.ts";

const CHANNEL = "toolplane_runs";
const KINDS = ["ended", "cancel", "answer"] as const;

/** What replicas tell each other of runs: that one has ended, is to be cancelled, or that an approval was resolved. */
export interface RunAnnouncement {
  readonly kind: (typeof KINDS)[number];
  readonly runId: string;
}

/** News of all replicas. They may be missed, so whoever follows them also looks from time to time. */
export interface RunAnnouncements {
  /** `undefined`: some may have been missed. Returns how to stop. */
  subscribe(listener: (news: RunAnnouncement | undefined) => void): () => void;
  close(): Promise<void>;
}

/** Tells all replicas, this one too; in a transaction, when that commits. */
export async function announce(kysely: Kysely<Tables>, { kind, runId }: RunAnnouncement): Promise<void> {
  await sql`SELECT pg_notify(${CHANNEL}, ${`${kind} ${runId}`})`.execute(kysely);
}

export async function openRunAnnouncements(database: Pick<Database, "listen">): Promise<RunAnnouncements> {
  const listeners = new Set<(news: RunAnnouncement | undefined) => void>();

  function tell(news: RunAnnouncement | undefined): void {
    for (const listener of [...listeners]) {
      listener(news);
    }
  }

  const subscription = await database.listen(
    CHANNEL,
    (payload) => {
      const news = parse(payload);
      if (news !== undefined) {
        tell(news);
      }
    },
    () => tell(undefined),
  );
  return {
    subscribe(listener) {
      // A function of its own, so that the same listener may subscribe twice.
      const own = (news: RunAnnouncement | undefined) => listener(news);
      listeners.add(own);
      return () => listeners.delete(own);
    },
    close: () => subscription.close(),
  };
}

/** Undefined: of a later version. */
function parse(payload: string): RunAnnouncement | undefined {
  const [word, runId = ""] = payload.split(" ");
  const kind = KINDS.find((known) => known === word);
  return kind && { kind, runId };
}
